from pathlib import Path
from typing import Literal, Type

from crewai.tools import BaseTool
from pydantic import BaseModel, Field

POLICIES = Path(__file__).resolve().parents[3] / "knowledge" / "policies.md"


class ReadPolicyInput(BaseModel):
    """Input schema for ReadPolicy."""

    category: Literal["delivery", "refund", "technical"] = Field(..., description="What the ticket is about.")


class ReadPolicy(BaseTool):
    name: str = "read_policy"
    description: str = "Reads what the shop promises its customers in tickets of one category."
    args_schema: Type[BaseModel] = ReadPolicyInput

    def _run(self, category: str) -> str:
        sections = POLICIES.read_text(encoding="utf-8").split("## ")
        policies = {title: " ".join(text.split()) for title, _, text in (part.partition("\n") for part in sections)}
        return policies.get(category, f"There is no policy for {category}.")
