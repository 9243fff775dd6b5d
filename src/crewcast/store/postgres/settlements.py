"""Outcomes of deliveries: of many lanes at once, one statement."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from crewcast.core.lane import Lane
from crewcast.store import rows
from crewcast.store.postgres.keys import KnownKeys
from crewcast.store.postgres.session import PostgresSession, plain
from crewcast.store.protocol import Settlement
from crewcast.store.verbs import outcomes

ATTEMPT_COLUMNS = (
    *("run", "lane", "seq", "number", "at", "verdict", "kind", "status", "retry_after", "duration", "detail"),
)


class GiveBack(NamedTuple):
    """A lane that is held no more: `parked`, it is due at `at`, else it stays due as it was, if it has work."""

    lane: Lane
    at: int
    parked: bool


Outcome = Settlement | GiveBack


def fits(together: dict[object, Outcome], value: Outcome) -> bool:
    """Whether it can be written with what is of the same lane before it: not after what gave it back."""
    place = value.lane.run_id, value.lane.number
    earlier = together.get(place)
    if earlier is not None:
        given_back = isinstance(earlier, GiveBack) or earlier.release
        if given_back or earlier.lane.lease_token != value.lane.lease_token:
            return False
    together[place] = value
    return True


async def write(db: PostgresSession, known: KnownKeys, values: Sequence[Outcome]) -> list[bool]:
    """Which were written, in the order of the values."""
    settled = [value for value in values if isinstance(value, Settlement)]
    results = iter(await _settle(db, known, settled) if settled else ())
    given_back = [value for value in values if isinstance(value, GiveBack)]
    if given_back:
        keys = await known.of(db, {value.lane.run_id for value in given_back})
        for name, parked in (("release_lane", False), ("park_lanes", True)):
            places = [
                (keys[value.lane.run_id], value.lane.number, value.lane.lease_token, value.at)
                for value in given_back
                if value.parked is parked
            ]
            await db.write_rows(name, sorted(places))
    return [next(results) if isinstance(value, Settlement) else True for value in values]


async def _settle(db: PostgresSession, known: KnownKeys, values: Sequence[Settlement]) -> list[bool]:
    """The last state of each lane is written: each settlement has the whole state."""
    keys = await known.of(db, {value.lane.run_id for value in values})
    latest: dict[tuple[int, int], Settlement] = {}
    for value in values:
        latest[keys[value.lane.run_id], value.lane.number] = value
    more = [value for value in values if outcomes.changes_more(value)]
    if more:
        await db.all("lock_runs", {"keys": sorted({keys[value.lane.run_id] for value in more})})
    lanes = [_lane_row(key, latest[key, number]) for key, number in sorted(latest)]
    held = {(run, lane) for run, lane in await db.records("settle", lanes)}
    results = [(keys[value.lane.run_id], value.lane.number) in held for value in values]
    written = [value for value, result in zip(values, results, strict=True) if result]
    if more:
        # In the order of the outcomes, so that the numbers of a lane's attempts are in it too.
        for value in written:
            key = keys[value.lane.run_id]
            row = dict(zip(ATTEMPT_COLUMNS, _attempt_row(key, value), strict=True))
            ((number,),) = await db.all("add_attempt", row)
            if outcomes.changes_more(value):
                await outcomes.consequences(db, key, value, number)
    elif written:
        rows_made = [_attempt_row(keys[value.lane.run_id], value) for value in written]
        await db.copy("attempt", ATTEMPT_COLUMNS, rows_made)
    return results


def _lane_row(key: int, value: Settlement) -> tuple[Any, ...]:
    lane = value.lane
    return (
        key,
        lane.number,
        lane.lease_token,
        lane.cursor,
        lane.settled,
        lane.tries,
        lane.refusals,
        lane.closed,
        value.attempt.at if lane.due_at is None else lane.due_at,
        value.release,
    )


def _attempt_row(key: int, value: Settlement) -> tuple[Any, ...]:
    made = value.attempt
    outcome = made.outcome
    return (
        key,
        made.lane,
        made.seq,
        made.number,
        made.at,
        rows.VERDICT_WORDS[made.verdict],
        outcome.kind,
        outcome.status,
        outcome.retry_after,
        outcome.duration,
        plain(outcome.detail),
    )
