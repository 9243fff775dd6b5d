from pathlib import Path

from crewai.tools import tool

MANUAL = Path("manual.txt")


@tool("search_manual")
def search_manual(question: str) -> str:
    """Searches the printer's manual."""
    return MANUAL.read_text()
