"""Rows of hidden runs: those that expired go with the partitions of their day, others in slices."""

from collections.abc import Sequence

from crewcast.store.postgres.connection import Database
from crewcast.store.postgres.partitions import Partitions
from crewcast.store.postgres.session import PostgresSession

# What nothing else names any more goes first; the run's own row goes last.
_ROWS: Sequence[str] = (
    "sweep_subscriptions",
    "sweep_attempts",
    "sweep_lanes",
    "sweep_journal",
    "sweep_reviews",
    "sweep_dead_letters",
    "sweep_events",
    "sweep_kickoff",
    "sweep_run",
)


async def sweep(database: Database, partitions: Partitions, limit: int) -> int:
    """At most `limit` rows of hidden runs, the oldest first; a day that is dropped counts as one."""
    removed = 0
    if limit > 0:
        for (day,) in await database.read(lambda db: db.all("finished_days", {})):
            if removed < limit:
                removed += bool(await partitions.drop(day))
    if removed < limit:
        removed += await database.transaction(lambda db: _slices(db, limit - removed))
    return removed


async def _slices(db: PostgresSession, limit: int) -> int:
    removed = 0
    while removed < limit:
        run = await db.first("swept_run", {})
        if run is None:
            break
        for name in _ROWS:
            if removed < limit:
                removed += await db.write(name, {"run": run[0], "limit": limit - removed})
    return removed
