import os

from crewai.tools import tool

HERE = os.path.dirname(os.path.abspath(__file__))


@tool
def read_changelog(version: str) -> str:
    """Reads the changelog."""
    return open(os.path.join(HERE, "CHANGES")).read()
