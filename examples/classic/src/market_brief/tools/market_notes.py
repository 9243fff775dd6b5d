import re
from pathlib import Path
from typing import Type

from crewai.tools import BaseTool
from pydantic import BaseModel, Field

NOTES = Path(__file__).resolve().parents[3] / "knowledge" / "market_notes.md"


class SearchMarketNotesInput(BaseModel):
    """Input schema for SearchMarketNotes."""

    query: str = Field(..., description="What to look for, a few words.")
    limit: int = Field(3, ge=1, le=6, description="How many sections to return.")


class SearchMarketNotes(BaseTool):
    name: str = "search_market_notes"
    description: str = (
        "Searches the market notes of earlier projects and returns the sections that fit the query best."
    )
    args_schema: Type[BaseModel] = SearchMarketNotesInput

    def _run(self, query: str, limit: int = 3) -> str:
        wanted = set(re.findall(r"\w{4,}", query.lower()))
        sections = [part.strip() for part in NOTES.read_text(encoding="utf-8").split("## ") if part.strip()]

        def hits(section: str) -> int:
            return len(wanted & set(re.findall(r"\w{4,}", section.lower())))

        best = sorted(sections, key=hits, reverse=True)[:limit]
        return "\n\n".join(f"{title}: {' '.join(text.split())}" for title, _, text in (s.partition("\n") for s in best))
