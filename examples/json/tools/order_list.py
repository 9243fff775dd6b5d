import csv
from collections import Counter
from pathlib import Path
from typing import Type

from crewai.tools import BaseTool
from pydantic import BaseModel, Field

RECIPES = Path(__file__).resolve().parents[1] / "knowledge" / "recipes.csv"


class OrderListInput(BaseModel):
    """Input schema for OrderList."""

    dishes: list[str] = Field(..., description="The dishes, named as in the recipe book.")
    pupils: int = Field(..., ge=1, description="How many pupils eat each dish once.")


class OrderList(BaseTool):
    name: str = "order_list"
    description: str = "Adds up the ingredients that the canteen has to order for some dishes and a number of pupils."
    args_schema: Type[BaseModel] = OrderListInput

    def _run(self, dishes: list[str], pupils: int) -> str:
        with RECIPES.open(encoding="utf-8", newline="") as file:
            portions = {recipe["dish"].lower(): recipe["portion"] for recipe in csv.DictReader(file)}
        grams: Counter[str] = Counter()
        unknown = [dish for dish in dishes if dish.strip().lower() not in portions]
        for dish in dishes:
            for part in portions.get(dish.strip().lower(), "").split("; "):
                ingredient, _, amount = part.removesuffix(" g").rpartition(" ")
                if ingredient:
                    grams[ingredient] += int(amount) * pupils
        lines = [f"{ingredient} {amount / 1000:.1f} kg" for ingredient, amount in grams.most_common()]
        ordered = f"Order for {pupils} pupils and {len(dishes) - len(unknown)} dishes: {', '.join(lines) or 'nothing'}"
        return ordered + (f". Not in the recipe book: {', '.join(unknown)}" if unknown else "")
