"""The days of the append-only tables: a partition for each day on which runs were created."""

import asyncpg

from crewcast.core.backoff import DAY
from crewcast.store.postgres.connection import Database
from crewcast.store.postgres.session import PostgresSession

SHIFT = 40  # of the day in a run's key; beside it there is room for a trillion runs a day
TABLES = ("event", "attempt")
_LOCK = 4341005


def day_of(at: int) -> int:
    return max(0, at) // DAY


class Partitions:
    """Makes days before runs need them, and drops them when none does."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._made: set[int] = set()

    async def ensure(self, db: PostgresSession, day: int) -> None:
        """Makes a day within the transaction that creates its first run."""
        if day not in self._made:
            await make(db, day)

    def made(self, day: int) -> None:
        """That transaction was committed."""
        self._made.add(day)

    async def drop(self, day: int) -> int:
        """A day of which nothing is shown; how many partitions went. Readers are not held up."""

        async def detach(db: PostgresSession) -> int:
            if not await db.connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
                return 0
            try:
                return await _drop(db, day)
            finally:
                await db.connection.execute("SELECT pg_advisory_unlock($1)", _LOCK)

        self._made.discard(day)
        return await self._database.read(detach)


async def make(db: PostgresSession, day: int) -> None:
    """Made apart and attached: unlike PARTITION OF, that waits for no reader and lets none wait."""
    await db.connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
    for table in TABLES:
        name = f"{table}_{day}"
        if await db.connection.fetchval("SELECT to_regclass($1)", name) is None:
            await db.connection.execute(f"CREATE TABLE {name} (LIKE {table} INCLUDING ALL)")
            await db.connection.execute(
                f"ALTER TABLE {table} ATTACH PARTITION {name} "
                f"FOR VALUES FROM ({day << SHIFT}) TO ({(day + 1) << SHIFT})"
            )


async def _drop(db: PostgresSession, day: int) -> int:
    gone = 0
    for table in TABLES:
        name = f"{table}_{day}"
        if await db.connection.fetchval("SELECT to_regclass($1)", name) is None:
            continue
        try:
            await db.connection.execute(f"ALTER TABLE {table} DETACH PARTITION {name} CONCURRENTLY")
        except asyncpg.ObjectNotInPrerequisiteStateError:  # an earlier detachment was cut short
            await db.connection.execute(f"ALTER TABLE {table} DETACH PARTITION {name} FINALIZE")
        except asyncpg.UndefinedTableError:  # it was detached and not yet dropped
            pass
        await db.connection.execute(f"DROP TABLE {name}")
        gone += 1
    return gone
