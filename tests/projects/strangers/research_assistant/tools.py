from crewai.tools import tool


@tool("Paper Search")
def paper_search(query: str) -> str:
    """Searches a library of papers."""
    return "2 papers: Bees Can Count (2021), What Wasps Want (2023)"
