"""A connection with the named queries of `queries.sql`, and the words for what goes wrong on it."""

import sqlite3
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from itertools import chain
from typing import Any

from crewcast.core.errors import StoreError, StoreFull, StoreUnusable
from crewcast.store.columns import expand
from crewcast.store.session import Values, parse_queries

# Rows that one statement takes. A cycle seldom has more, and preparing a larger one takes milliseconds.
MOST_ROWS = 256


# Whether `event`, which was committed before, belongs to `lane`. What a lane heard is told by its ranges if that
# ever changed; a replay and a split lane have those of the lane that they come from.
HEARD = """iif(lane.ranged = 0, event.channel & lane.channels, EXISTS (
    SELECT 1 FROM subscription AS heard
    WHERE heard.run = lane.run AND heard.lane = coalesce(lane.replay_of, lane.split_of, lane.number)
      AND heard.first <= event.seq AND heard.last >= event.seq AND heard.channels & event.channel))"""


@cache
def load_queries() -> dict[str, str]:
    text = resources.files(__package__).joinpath("queries.sql").read_text()
    return {name: expand(sql, {"heard": HEARD}) for name, sql in parse_queries(text).items()}


class Session:
    """Runs named queries. Used by one thread at a time."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._queries = load_queries()
        self._expanded: dict[tuple[str, int], str] = {}

    def all(self, name: str, params: Mapping[str, Any]) -> list[Values]:
        return self.connection.execute(self._queries[name], params).fetchall()

    def first(self, name: str, params: Mapping[str, Any]) -> Values | None:
        row: Values | None = self.connection.execute(self._queries[name], params).fetchone()
        return row

    def write(self, name: str, params: Mapping[str, Any]) -> int:
        """The number of rows that were changed."""
        return self.connection.execute(self._queries[name], params).rowcount

    def insert(self, name: str, params: Mapping[str, Any]) -> int:
        """The new row's integer key."""
        key = self.connection.execute(self._queries[name], params).lastrowid
        assert key is not None
        return key

    def write_rows(self, name: str, rows: Sequence[Values]) -> int:
        """One statement for up to 256 rows; the number of rows that were changed.

        One statement is one step without the interpreter's lock: with a statement a row, the committer
        would ask the busy event loop for the lock once a row.
        """
        changed = 0
        for start in range(0, len(rows), MOST_ROWS):
            part = rows[start : start + MOST_ROWS]
            width = len(part[0])
            size = 1 << (len(part) - 1).bit_length()
            params = list(chain.from_iterable(part))
            params += [None] * (width * (size - len(part)))
            changed += self.connection.execute(self._expand(name, width, size), params).rowcount
        return changed

    def _expand(self, name: str, width: int, size: int) -> str:
        sql = self._expanded.get((name, size))
        if sql is None:
            row = f"({', '.join('?' * width)})"
            sql = self._queries[name].replace("$rows", ", ".join([row] * size))
            self._expanded[name, size] = sql
        return sql


class Immediate:
    """A session for the rules in `store/verbs`: nothing in it waits."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def all(self, name: str, params: Mapping[str, Any]) -> list[Values]:
        return self._session.all(name, params)

    async def first(self, name: str, params: Mapping[str, Any]) -> Values | None:
        return self._session.first(name, params)

    async def write(self, name: str, params: Mapping[str, Any]) -> int:
        return self._session.write(name, params)

    async def write_rows(self, name: str, rows: Sequence[Values]) -> int:
        return self._session.write_rows(name, rows)


_UNUSABLE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}
_READING = {sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_CORRUPTFS}


def store_error(error: sqlite3.Error, file: object) -> StoreError:
    """What the operator does next. An I/O error of a write is nearly always a full disk or quota."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    said = f"{error} ({getattr(error, 'sqlite_errorname', 'no code')})"
    primary = code & 0xFF
    if primary == sqlite3.SQLITE_FULL or (primary == sqlite3.SQLITE_IOERR and code not in _READING):
        why = "" if primary == sqlite3.SQLITE_FULL else "; most likely the disk or a quota is full"
        return StoreFull(
            f"{file} cannot grow: {said}{why}. Nothing was written. Make room; no restart is needed."
        )
    if primary in _UNUSABLE or primary == sqlite3.SQLITE_IOERR:
        return StoreUnusable(f"{file} cannot be used: {said}. Check the disk, or restore a backup.")
    return StoreError(f"{file} refused: {said}. Nothing was written.")
