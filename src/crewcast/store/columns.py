"""`$run`, `$event`, `$lane` and `$review` in the queries: the columns of a value of core, in the order of its fields."""

import re
from collections.abc import Mapping

from msgspec import Struct

from crewcast.core.event import Event
from crewcast.core.lane import Lane
from crewcast.core.review import Review
from crewcast.core.run import Run

# Fields of a run that have a table of their own.
KICKOFF = ("inputs", "meta", "options", "token", "max_attempts", "timeout")


def _columns(table: str, value: type[Struct], **elsewhere: str) -> str:
    known = {"run_id": "run.id"} | elsewhere
    return ", ".join(known.get(field, f"{table}.{field}") for field in value.__struct_fields__)


COLUMNS = {
    "run": _columns("run", Run, **{field: f"kickoff.{field}" for field in KICKOFF}),
    "event": _columns("event", Event),
    "lane": _columns("lane", Lane),
    "review": _columns("review", Review, index="review.place", default="review.on_expiry"),  # words of SQL
}
_WORD = re.compile(r"\$([a-z]+)\b")


def expand(statement: str, own: Mapping[str, str]) -> str:
    """A statement with these words written out, and those of its engine. Others are left for later."""
    words = COLUMNS | dict(own)
    return _WORD.sub(lambda found: words.get(found[1], found[0]), statement)
