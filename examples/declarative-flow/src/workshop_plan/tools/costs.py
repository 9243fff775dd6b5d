import csv
from pathlib import Path
from typing import Any, Type

from crewai.tools import BaseTool
from pydantic import BaseModel, Field

PRICES = Path(__file__).resolve().parents[1] / "knowledge" / "prices.csv"


class EstimateCostsInput(BaseModel):
    """Input schema for EstimateCosts."""

    guests: int = Field(..., ge=1, description="How many guests come.")


class EstimateCosts(BaseTool):
    name: str = "estimate_costs"
    description: str = "Estimates from the price list what a workshop costs for a number of guests."
    args_schema: Type[BaseModel] = EstimateCostsInput

    def _run(self, guests: int) -> dict[str, Any]:
        with PRICES.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        items = [
            {
                "item": row["item"],
                "cost": float(row["price"]) * (guests if row["per"] == "guest" else 1),
                "needed": row["needed"] == "yes",
            }
            for row in rows
        ]
        return summary(items)


def cut_costs(flow, items: list[dict[str, Any]], budget: float) -> dict[str, Any]:
    """Leaves out what is not needed, the dearest first, until the rest is within the budget."""
    kept = list(items)
    for item in sorted((item for item in items if not item["needed"]), key=lambda item: -item["cost"]):
        if sum(each["cost"] for each in kept) <= budget:
            break
        kept.remove(item)
    return summary(kept, left_out=[item["item"] for item in items if item not in kept])


def summary(items: list[dict[str, Any]], left_out: list[str] = []) -> dict[str, Any]:
    total = sum(item["cost"] for item in items)
    text = f"{total:,.0f} EUR for {', '.join(item['item'] for item in items)}"
    return {
        "total": total,
        "items": items,
        "text": text + (f"; left out: {', '.join(left_out)}" if left_out else ""),
    }
