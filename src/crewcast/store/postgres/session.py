"""The named queries of `queries.sql` on a connection, and the values that PostgreSQL can keep."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

import msgspec

from crewcast.store.columns import COLUMNS, expand
from crewcast.store.session import Values, parse_queries

Connection = Any  # asyncpg's, from a pool or not

SCHEMA = "crewcast"

# Whether `event`, which was committed before, belongs to `lane`. What a lane heard is told by its ranges if that
# ever changed; a replay and a split lane have those of the lane that they come from.
HEARD = """CASE WHEN lane.ranged = 0 THEN event.channel & lane.channels <> 0 ELSE EXISTS (
    SELECT 1 FROM subscription AS heard
    WHERE heard.run = lane.run AND heard.lane = coalesce(lane.replay_of, lane.split_of, lane.number)
      AND heard.first <= event.seq AND heard.last >= event.seq AND heard.channels & event.channel <> 0) END"""

# A dispatcher's lanes have one lease.
OWN = {
    "heard": HEARD,
    "lane": COLUMNS["lane"].replace(
        "lane.lease_until", "(SELECT until_time FROM lease WHERE lease.token = lane.lease_token)"
    ),
}

_RECORDS = re.compile(r"\$records\(([^()]*)\)")
_ROWS = re.compile(r"\$rows\(([^()]*)\)")
_PARAMETER = re.compile(r"(?<![:\w]):([a-z_]+)\b")


class Query:
    """A statement and the order of its parameters."""

    __slots__ = ("columns", "names", "sql")

    def __init__(self, text: str) -> None:
        self.names: list[str] = []
        self.columns: tuple[str, ...] = ()
        text = _ROWS.sub(_table, expand(text, OWN))
        if (records := _RECORDS.search(text)) is not None:
            self.columns = tuple(column.split()[0] for column in records[1].split(","))
            text = text.replace(records[0], f"json_to_recordset($1::json) AS v ({records[1]})")
        self.sql = _PARAMETER.sub(self._place, text)

    def _place(self, found: re.Match[str]) -> str:
        name = found[1]
        if name not in self.names:
            self.names.append(name)
        return f"${self.names.index(name) + 1}"

    def values(self, params: Mapping[str, Any]) -> list[Any]:
        return [
            plain(value) if isinstance(value, str) else value for value in map(params.__getitem__, self.names)
        ]


def _table(found: re.Match[str]) -> str:
    types = [name.strip() for name in found[1].split(",")]
    arrays = ", ".join(f"${n}::{name}[]" for n, name in enumerate(types, 1))
    return f"unnest({arrays}) AS v ({', '.join(f'column{n}' for n in range(1, len(types) + 1))})"


@cache
def load_queries() -> dict[str, Query]:
    text = resources.files(__package__).joinpath("queries.sql").read_text()
    return {name: Query(statement) for name, statement in parse_queries(text).items()}


class PostgresSession:
    """The named queries on one connection: `store.session.Session`."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._queries = load_queries()

    async def all(self, name: str, params: Mapping[str, Any]) -> list[Values]:
        query = self._queries[name]
        found: list[Values] = await self.connection.fetch(query.sql, *query.values(params))
        return found

    async def first(self, name: str, params: Mapping[str, Any]) -> Values | None:
        query = self._queries[name]
        found: Values | None = await self.connection.fetchrow(query.sql, *query.values(params))
        return found

    async def write(self, name: str, params: Mapping[str, Any]) -> int:
        query = self._queries[name]
        return _changed(await self.connection.execute(query.sql, *query.values(params)))

    async def write_rows(self, name: str, rows: Sequence[Values]) -> int:
        if not rows:
            return 0
        return _changed(await self.connection.execute(self._queries[name].sql, *zip(*rows, strict=True)))

    async def copy(self, table: str, columns: Sequence[str], rows: Sequence[Values]) -> None:
        """Many new rows of a table: cheaper than any statement, for both sides."""
        await self.connection.copy_records_to_table(table, records=rows, columns=columns, schema_name=SCHEMA)

    async def records(self, name: str, rows: Sequence[Values]) -> list[Values]:
        """A statement over many rows, which go as one JSON text: the driver takes ten times as long for arrays."""
        query = self._queries[name]
        names = query.columns
        # What is not there is NULL.
        text = msgspec.json.encode(
            [{k: v for k, v in zip(names, row, strict=True) if v is not None} for row in rows]
        )
        found: list[Values] = await self.connection.fetch(query.sql, text.decode())
        return found


def _changed(status: str) -> int:
    word = status.rpartition(" ")[2]
    return int(word) if word.isdigit() else 0


def plain(text: str | None) -> str | None:
    """A text as PostgreSQL can keep it: it has no NUL, and no half of a pair of surrogates."""
    if text is None or (text.isascii() and "\0" not in text):
        return text
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")
