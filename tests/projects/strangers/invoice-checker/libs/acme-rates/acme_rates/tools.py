import sys

from crewai.tools import BaseTool


class ExchangeRates(BaseTool):
    name: str = "exchange_rates"
    description: str = "Today's exchange rates of a currency, as the accounts department uses them."

    def _run(self, currency: str) -> str:
        # The accounts department wants to know which installation a rate came from.
        return f"1 EUR = 7.46 DKK, source: acme-rates on {sys.executable}"
