"""Appends to the log: of many runs at once, one statement."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from crewcast.core.run import Run, RunState
from crewcast.store import rows
from crewcast.store.postgres.keys import KnownKeys
from crewcast.store.postgres.session import PostgresSession, plain
from crewcast.store.session import Values
from crewcast.store.verbs import journal, reviews
from crewcast.store.verbs.append import Append, check_dense, work_of

EVENT_COLUMNS = ("run", "seq", "channel", "type", "at", "run_attempt", "task_id", "body", "whole")


class Unheld(Exception):
    """A guard did not hold, so whose has to be found out."""


def fits(together: dict[object, Append], value: Append) -> bool:
    """Whether an append can be written with those of the same run before it, which it then follows directly."""
    earlier = together.get(value.run.id)
    if earlier is not None:
        follows = earlier.run.seq == value.run.seq - len(value.events)
        if (
            not follows
            or earlier.run.state is not RunState.RUNNING
            or earlier.lease_token != value.lease_token
        ):
            return False
    together[value.run.id] = value
    return True


async def append(
    db: PostgresSession, known: KnownKeys, claimable: Callable[[], None], values: Sequence[Append]
) -> list[bool]:
    """Which of the appends were written. The last state of each run is, guarded by what the log was before the first.

    `claimable` is called if lanes that nobody holds have work by it. Raises Unheld if one of several of a run may be
    what was in the way: each is then to be repeated alone.
    """
    latest: dict[str, tuple[Run, int, str]] = {}
    for run, events, token, *_ in values:
        check_dense(run, events, run.seq - len(events))
        seen = latest[run.id][1] if run.id in latest else run.seq - len(events)
        latest[run.id] = run, seen, token
    keys = await known.of(db, latest)
    moved = sorted(_run_row(keys[run_id], *state) for run_id, state in latest.items() if keys[run_id])
    held = {key for (key,) in await db.records("append", moved)} if moved else set()
    if len(values) > len(latest) and len(held) < len(latest):
        raise Unheld
    seen_of = {keys[run_id]: seen for run_id, (_, seen, _) in latest.items()}
    logged = [
        _event_row(key, event)
        for value in values
        if (key := keys[value.run.id]) in held
        for event in value.events
    ]
    if await _log(db, logged, seen_of):
        claimable()
    results = [keys[value.run.id] in held for value in values]
    beside = [
        value
        for value, result in zip(values, results, strict=True)
        if result and (value.journal or value.review is not None or value.run.state is not RunState.RUNNING)
    ]
    if beside:
        await _append_beside(db, keys, beside)
    return results


async def _append_beside(db: PostgresSession, keys: dict[str, int], values: Sequence[Append]) -> None:
    """What few appends bring: entries of the journal, and what a run asks, or does not ask any more."""
    await journal.write(db, [(keys[value.run.id], value.journal) for value in values])
    for run, *_, review in values:
        if review is not None:
            reviews.check_asked(run, review)
            await reviews.ask(db, keys[run.id], review)
        elif run.state is not RunState.RUNNING:
            # What a process asked in place, nobody answers any more.
            await db.write("void_review", {"run": keys[run.id], "at": run.finished_at, "by": run.stop})


async def log(db: PostgresSession, run: Run, events: Sequence[Any], before: int) -> None:
    """Events of a run that nobody holds, behind number `before`: for the rules in `store/verbs`."""
    check_dense(run, events, before)
    if not events:
        return
    ((_, key),) = await db.all("keys_of_runs", {"ids": [run.id]})
    await _log(db, [_event_row(key, event) for event in events], {key: before})


async def _log(db: PostgresSession, logged: Sequence[Values], seen_of: Mapping[int, int]) -> bool:
    """New rows of the log, and work for the lanes that hear of them; of each run `seen_of` has what was before.

    Whether some of these can be claimed now.
    """
    if not logged:
        return False
    await db.copy("event", EVENT_COLUMNS, logged)
    work = sorted(work_of(logged))
    told = await db.records("append_work", work)
    closed = {run for run, has_closed in told if has_closed}
    if closed:
        await db.write_rows("append_dead", [(key, seen_of[key]) for key in sorted(closed)])
    return len(told) > len(closed)


def _run_row(key: int, run: Run, seen: int, token: str) -> Values:
    running = run.state is RunState.RUNNING
    return (
        key,
        token,
        seen,
        run.seq,
        run.total_tasks,
        run.completed_tasks,
        plain(run.current_task),
        plain(run.error),
        plain(run.error_detail),
        rows.STATE_WORDS[run.state],
        run.finished_at,
        None if running else run.worked,
    )


def _event_row(key: int, event: Any) -> Values:
    row = rows.event_row(key, event)
    return row if row[6] is None else (*row[:6], plain(row[6]), *row[7:])
