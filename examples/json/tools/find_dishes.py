import csv
import re
from pathlib import Path
from typing import Type

from crewai.tools import BaseTool
from pydantic import BaseModel, Field

RECIPES = Path(__file__).resolve().parents[1] / "knowledge" / "recipes.csv"


class FindDishesInput(BaseModel):
    """Input schema for FindDishes."""

    without: str = Field(..., description="What no dish may contain, such as 'nuts' or 'fish and dairy'.")
    dishes: int = Field(5, ge=1, le=12, description="How many dishes to return.")


class FindDishes(BaseTool):
    name: str = "find_dishes"
    description: str = "Finds dishes of the canteen's recipe book that contain nothing that pupils must not eat."
    args_schema: Type[BaseModel] = FindDishesInput

    def _run(self, without: str, dishes: int = 5) -> str:
        unwanted = set(re.findall(r"[a-z]+", without.lower()))
        with RECIPES.open(encoding="utf-8", newline="") as file:
            recipes = list(csv.DictReader(file))
        found = [recipe["dish"] for recipe in recipes if not unwanted & set(recipe["contains"].split())]
        if not found:
            return f"All {len(recipes)} dishes of the recipe book contain {without}."
        return f"Dishes without {without}: {'; '.join(found[:dishes])}"
