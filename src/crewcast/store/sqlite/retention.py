"""How runs go: hidden at once, their rows in slices."""

import json
from collections.abc import Sequence
from typing import NamedTuple

from crewcast.store.protocol import Removal
from crewcast.store.sqlite.run_keys import RunKeys
from crewcast.store.sqlite.session import Session

# In this order; of a run that nobody ever asked anything, the first two are none.
_ROWS = ("sweep_journal", "sweep_reviews", "sweep_dead_letters", "sweep_events", "sweep_kickoff", "sweep_run")


class Expire(NamedTuple):
    run_ids: Sequence[str]
    before: int


def expire(db: Session, keys: RunKeys, value: Expire) -> list[str]:
    """Hides those that still may go."""
    hidden = []
    for run_id in value.run_ids:
        key = keys.of(run_id)
        if db.write("hide_expired", {"key": key, "before": value.before}):
            _let_go(db, keys, run_id, key)
            hidden.append(run_id)
    return hidden


def hide(db: Session, keys: RunKeys, run_id: str) -> Removal:
    key = keys.of(run_id)
    if not key:
        return Removal.UNKNOWN
    if not db.write("hide_run", {"key": key}):
        return Removal.RUNNING
    _let_go(db, keys, run_id, key)
    return Removal.HIDDEN


def _let_go(db: Session, keys: RunKeys, run_id: str, key: int) -> None:
    """Nobody holds anything of the run any more, and no write finds its key."""
    db.write("hide_lanes", {"key": key})
    db.write("hide_review", {"key": key})
    keys.forget(run_id)


def sweep(db: Session, limit: int, last_attempt: int) -> int:
    """At most `limit` rows of hidden runs, the oldest first."""
    removed = 0
    while removed < limit:
        run = db.first("hidden_run", {})
        if run is None:
            break
        removed += _sweep_run(db, run[0], limit - removed, last_attempt)
    return removed


def _sweep_run(db: Session, run: int, limit: int, last_attempt: int) -> int:
    """What nothing else names any more goes first; the run's own row goes last."""
    removed = db.write("sweep_subscriptions", {"run": run, "limit": limit})
    while removed < limit:
        lane = db.first("first_lane", {"run": run})
        if lane is None:
            break
        number, last = lane
        removed += _sweep_lane(db, run, number, last, limit - removed, last_attempt)
    for name in _ROWS:
        if removed < limit:
            removed += db.write(name, {"run": run, "limit": limit - removed})
    return removed


def _sweep_lane(db: Session, run: int, number: int, last: int | None, limit: int, last_attempt: int) -> int:
    """A slice of the lane's attempts, or the lane once it has none."""
    if last is None:
        return db.write("sweep_lane", {"run": run, "number": number})
    chain = db.all("chain", {"last": last, "limit": limit})
    db.write("keep_high_water", {"value": last_attempt})
    db.write("shorten_chain", {"run": run, "number": number, "last": chain[-1][1] if chain else None})
    return db.write("sweep_attempts", {"ids": json.dumps([attempt for attempt, _ in chain])})
