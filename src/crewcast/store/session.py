"""What both engines share: named queries, and the session that the rules in `store/verbs` write through.

The rules are coroutines. With PostgreSQL they wait for the database; with SQLite they run in the committer's
thread, where nothing ever waits, and `finish` takes them to their end in one step.
"""

import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol, TypeVar

R = TypeVar("R")
Values = tuple[Any, ...]
LARGEST = (1 << 63) - 1  # of any number here
_NAME = re.compile(r"^-- name: (\w+)\n((?:--.*\n)+)", re.MULTILINE)


def parse_queries(text: str) -> dict[str, str]:
    """`-- name: x`, one or more comment lines with the reason, then the statement up to the next name."""
    found = list(_NAME.finditer(text))
    ends = [match.start() for match in found[1:]] + [len(text)]
    queries: dict[str, str] = {}
    for match, end in zip(found, ends, strict=True):
        if match[1] in queries:
            raise ValueError(f"two queries are named {match[1]}")
        statement = "\n".join(
            line for line in text[match.end() : end].splitlines() if not line.startswith("--")
        )
        queries[match[1]] = statement.strip()
    return queries


class Session(Protocol):
    """Runs an engine's named queries within one transaction."""

    async def all(self, name: str, params: Mapping[str, Any]) -> Sequence[Values]: ...

    async def first(self, name: str, params: Mapping[str, Any]) -> Values | None: ...

    async def write(self, name: str, params: Mapping[str, Any]) -> int:
        """The number of rows that were changed."""

    async def write_rows(self, name: str, rows: Sequence[Values]) -> int:
        """The values of many rows; the number of rows that were changed."""


class Keys(Protocol):
    """The integer keys that runs have inside a store."""

    async def of(self, run_id: str) -> int:
        """The run's key; 0, which none has, for a run that is unknown or hidden."""

    async def forget(self, run_id: str) -> None:
        """One that was hidden."""


def finish(rule: Callable[..., Coroutine[Any, Any, R]], *args: Any) -> R:
    """What a rule returns over a session that never waits."""
    steps = rule(*args)
    try:
        steps.send(None)
    except StopIteration as end:
        result: R = end.value
        return result
    steps.close()
    raise RuntimeError(f"{rule!r} waited in a session that never does")
