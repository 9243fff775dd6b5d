from acme_rates.tools import ExchangeRates

__all__ = ["ExchangeRates"]
