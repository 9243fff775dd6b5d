"""The whole move: one transaction, read back before it is committed."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import asyncpg
import msgspec

from crewcast.core.errors import StoreUnusable
from crewcast.store.moving.source import Source, opened
from crewcast.store.moving.tables import TABLES, Table
from crewcast.store.postgres.connection import AWAY, Database
from crewcast.store.postgres.partitions import make
from crewcast.store.postgres.schema import migrate
from crewcast.store.postgres.session import Connection, PostgresSession
from crewcast.store.session import Values

_LOCK = 4341006
_OTHERS_WITHIN = "3s"  # one that was killed a moment ago has let go by then
TELL_EVERY = 1000  # rows
MOST_ROWS = 2000  # read back at once, and of large ones as many as fit into
MOST_BYTES = 16_000_000

# `doing` is a word for what is done with a table, `done` of `total` rows.
Told = Callable[[str, str, int, int], None]


class Moved(NamedTuple):
    """Where to, and how many rows of each table."""

    where: str
    rows: dict[str, int]


class Tally:
    """How many rows, and a sum of their digests that does not depend on their order."""

    def __init__(self) -> None:
        self.rows = 0
        self.largest = 1
        self._sum = 0

    def add(self, row: Values) -> None:
        text = msgspec.msgpack.encode(row)
        self.rows += 1
        self.largest = max(self.largest, len(text))
        digest = hashlib.blake2b(text, digest_size=16).digest()
        self._sum = (self._sum + int.from_bytes(digest)) & ((1 << 128) - 1)

    @property
    def told(self) -> tuple[int, int]:
        return self.rows, self._sum


async def move(folder: Path, url: str, told: Told) -> Moved:
    """Copies everything in a data folder that no server holds into an empty database, made or migrated first.

    All of it is there once this returns. When it raises, or is killed, the database is as empty as it was. The folder
    stays as it is, but for its schema.

    Raises UsageError and StoreError for what must be mended first.
    """
    with opened(folder) as source:
        database = await Database.open(url)
        try:
            await migrate(database)
            return Moved(f"PostgreSQL at {database.shown}", await _move(source, database, told))
        except (asyncpg.PostgresError, asyncpg.InterfaceError, *AWAY) as e:
            raise database.error(e) from e
        finally:
            await database.close()


async def _move(source: Source, database: Database, told: Told) -> dict[str, int]:
    connection = await database.connect("crewcast migrate", answer_within=None)
    try:
        # Nothing may take longer than it takes; and it reads whole tables.
        await connection.execute(
            "SET idle_in_transaction_session_timeout = 0; SET statement_timeout = 0; SET enable_seqscan = on"
        )
        await _alone(connection, database)
        await _check_empty(connection, database)
        # Days are made ahead, each in a transaction of its own: all of them in one would need too many locks.
        for day in source.place_runs():
            async with connection.transaction():
                await make(PostgresSession(connection), day)
        return await database.commit(connection, lambda db: _copy(source, db.connection, database, told))
    finally:
        with suppress(*AWAY):
            await connection.close(timeout=5)


async def _alone(connection: Connection, database: Database) -> None:
    """Until the connection ends."""
    await connection.execute(f"SET lock_timeout = '{_OTHERS_WITHIN}'")
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
    except asyncpg.LockNotAvailableError as e:
        raise StoreUnusable(
            f"PostgreSQL at {database.shown} is being moved to by another `crewcast migrate`: let that one end"
        ) from e
    await connection.execute("SET lock_timeout = '15s'")


async def _check_empty(connection: Connection, database: Database) -> None:
    there = await connection.fetch(
        "SELECT name FROM node WHERE until_time > extract(epoch FROM clock_timestamp()) * 1000000 ORDER BY name"
    )
    if there:
        names = ", ".join(name for (name,) in there)
        raise StoreUnusable(f"PostgreSQL at {database.shown} has nodes at work: stop them first: {names}")
    filled = [
        table.name
        for table in TABLES
        if await connection.fetchval(f"SELECT EXISTS (SELECT 1 FROM {table.name})")  # noqa: S608 - ours
    ]
    if filled:
        raise StoreUnusable(
            f"PostgreSQL at {database.shown} is not empty: there are rows in {', '.join(filled)}. "
            "Nothing is added to what is there: name an empty database"
        )


async def _copy(source: Source, connection: Connection, database: Database, told: Told) -> dict[str, int]:
    # Nodes that start now wait, and find what has come, or an error.
    names = ", ".join(table.name for table in TABLES)
    await connection.execute(f"LOCK TABLE {names}, node IN EXCLUSIVE MODE")
    await _check_empty(connection, database)
    now = await connection.fetchval("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
    tallies: dict[str, Tally] = {}
    for table in TABLES:
        tally = tallies[table.name] = Tally()
        total = source.count(table)
        told("copying", table.name, 0, total)
        counted = _counted(source.rows(table, now), tally, table, total, told)
        try:
            await connection.copy_records_to_table(table.name, records=counted, columns=table.columns)
        except OverflowError as e:
            raise StoreUnusable(
                f"{source.file} has a number in {table.name} that PostgreSQL cannot keep: {e}"
            ) from e
        if tally.rows != total:
            raise StoreUnusable(
                f"{source.file} is damaged: of {total} rows in {table.name} {tally.rows} were read"
            )
    for sequence, number in source.highest().items():
        await connection.execute(
            "SELECT setval($1::text::regclass, $2, $3)", sequence, max(number, 1), number > 0
        )
    for table in TABLES:
        found = await _read_back(connection, table, tallies[table.name], told)
        if found.told != tallies[table.name].told:
            raise StoreUnusable(
                f"PostgreSQL at {database.shown} does not give back what was written to {table.name}: "
                f"{found.rows} rows of {tallies[table.name].rows}. Nothing was written."
            )
    return {name: tally.rows for name, tally in tallies.items()}


async def _counted(
    rows: Iterable[Values], tally: Tally, table: Table, total: int, told: Told
) -> AsyncIterator[Values]:
    for row in rows:
        tally.add(row)
        if tally.rows % TELL_EVERY == 0:
            told("copying", table.name, tally.rows, total)
            await asyncio.sleep(0)  # who wants it to stop is heard
        yield row


async def _read_back(connection: Connection, table: Table, written: Tally, told: Told) -> Tally:
    found = Tally()
    told("reading back", table.name, 0, written.rows)
    at_once = max(1, min(MOST_ROWS, MOST_BYTES // written.largest))
    cursor = await connection.cursor(f"SELECT {', '.join(table.columns)} FROM {table.name}")  # noqa: S608 - ours
    while rows := await cursor.fetch(at_once):
        for row in rows:
            found.add(tuple(row))
        told("reading back", table.name, found.rows, written.rows)
        await asyncio.sleep(0)
    return found
