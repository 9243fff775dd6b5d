"""Runs that nobody holds: what they ask, what is decided, how they end."""

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from crewcast.core.event import Event
from crewcast.core.lane import Lane
from crewcast.core.review import Review, ReviewState
from crewcast.core.run import Run, RunState
from crewcast.store import rows
from crewcast.store.session import Keys, Session
from crewcast.store.verbs import subscriptions

# Adds events to the log of a run that had so many before, and work to its lanes.
Log = Callable[[Run, Sequence[Event], int], Awaitable[None]]


class Decide(NamedTuple):
    review: Review
    before: Run
    after: Run
    events: Sequence[Event]
    subscriptions: Sequence[Lane] | None


class Remind(NamedTuple):
    review: Review
    before: Run
    after: Run
    events: Sequence[Event]


class Conclude(NamedTuple):
    before: Run
    after: Run
    events: Sequence[Event]


class Stop(NamedTuple):
    run_id: str
    by: str


async def ask(db: Session, run: int, review: Review) -> None:
    await db.write("ask", rows.review_columns(run, review))


def check_asked(run: Run, review: Review) -> None:
    asks = run.state in (RunState.WAITING, RunState.RUNNING)
    if review.run_id != run.id or review.state != ReviewState.PENDING or not asks:
        raise ValueError(f"run {run.id} is {run.state}: it cannot ask what review {review.number} asks")


async def decide(db: Session, keys: Keys, log: Log, value: Decide) -> bool:
    review, before, after, events, wanted = value
    if review.state == ReviewState.PENDING:
        raise ValueError(f"run {before.id}: review {review.number} is not decided")
    key = await keys.of(before.id)
    pending = await _pending(db, key, review, before)
    if before.state is RunState.RUNNING:
        # Its process waits in place: the run goes on by itself, and what moved it on is no obstacle.
        if after != before or events or wanted is not None:
            raise ValueError(f"run {before.id} is at work: a decision changes nothing but its review")
        if pending is None or await db.first("is_running", {"key": key}) is None:
            return False
    elif pending is None or not await _move(db, key, before, after, events):
        return False
    await db.write("settle_review", rows.review_columns(key, review))
    if wanted is not None:
        await subscriptions.take_over(db, key, before.seq, wanted)
    await log(after, events, before.seq)
    return True


async def remind(db: Session, keys: Keys, log: Log, value: Remind) -> bool:
    review, before, after, events = value
    if review.state != ReviewState.PENDING or after.state is not before.state:
        raise ValueError(f"run {before.id}: a reminder of review {review.number} decides nothing")
    key = await keys.of(before.id)
    pending = await _pending(db, key, review, before)
    if pending != review.reminders - 1 or not await _move(db, key, before, after, events):
        return False
    await db.write("settle_review", rows.review_columns(key, review))
    await log(after, events, before.seq)
    return True


async def conclude(db: Session, keys: Keys, log: Log, value: Conclude) -> bool:
    before, after, events = value
    key = await keys.of(before.id)
    if not await _move(db, key, before, after, events):
        return False
    await db.write("void_review", {"run": key, "at": after.finished_at, "by": after.stop})
    await log(after, events, before.seq)
    return True


async def request_stop(db: Session, keys: Keys, value: Stop) -> Run | None:
    await db.write("request_stop", {"key": await keys.of(value.run_id), "by": value.by})
    row = await db.first("run", {"id": value.run_id})
    return None if row is None else rows.run_from(row)


async def _pending(db: Session, key: int, review: Review, before: Run) -> int | None:
    """How many reminders the review had, if it is what the run asks."""
    if review.run_id != before.id:
        raise ValueError(f"review {review.number} of run {review.run_id} is none of run {before.id}")
    row = await db.first("pending_review", {"run": key})
    return row[1] if row is not None and row[0] == review.number else None


async def _move(db: Session, key: int, before: Run, after: Run, events: Sequence[Event]) -> bool:
    if after.id != before.id or after.seq != before.seq + len(events):
        raise ValueError(
            f"run {before.id}: {len(events)} events do not lead from {before.seq} to {after.seq}"
        )
    moved = {
        "key": key,
        "seen_state": rows.STATE_WORDS[before.state],
        "seen_seq": before.seq,
        "state": rows.STATE_WORDS[after.state],
        "seq": after.seq,
        "total_tasks": after.total_tasks,
        "completed_tasks": after.completed_tasks,
        "current_task": after.current_task,
        "error": after.error,
        "error_detail": after.error_detail,
        "finished_at": after.finished_at,
        "continues": int(after.continues),
        "stop": after.stop,
    }
    return await db.write("move_unheld", moved) == 1
