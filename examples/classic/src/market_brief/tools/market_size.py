from crewai.tools import tool


@tool("estimate_market_size")
def estimate_market_size(customers: int, share_percent: float, price: float) -> str:
    """Estimates a yearly market size bottom-up from the number of possible customers, the share of them that buys
    (in percent) and the average price per customer and year."""
    buyers = customers * share_percent / 100
    return (
        f"{customers:,} possible customers x {share_percent:g} percent = {buyers:,.0f} buyers; "
        f"{buyers:,.0f} buyers x {price:,.2f} = {buyers * price:,.2f} per year"
    )
