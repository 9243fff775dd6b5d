import csv
import re
from pathlib import Path
from typing import Type

from crewai.tools import BaseTool
from pydantic import BaseModel, Field

ORDERS = Path(__file__).resolve().parents[3] / "knowledge" / "orders.csv"


class OrderLookupInput(BaseModel):
    """Input schema for OrderLookup."""

    order: str = Field(..., description="The order's number, such as B-1042.")


class OrderLookup(BaseTool):
    name: str = "look_up_order"
    description: str = "Looks an order up by its number: what was bought, for how much, and where it is."
    args_schema: Type[BaseModel] = OrderLookupInput

    def _run(self, order: str) -> str:
        number = re.search(r"[A-Z]-\d{4}", order.upper())
        with ORDERS.open(encoding="utf-8", newline="") as file:
            orders = {row["order"]: row for row in csv.DictReader(file)}
        if not number or number[0] not in orders:
            return f"No such order in the book: {order}."
        row = orders[number[0]]
        return f"Order {row['order']} of {row['customer']}: {row['item']} for {row['price']} EUR, {row['state']}."
