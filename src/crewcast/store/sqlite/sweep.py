"""Rows of hidden runs go in slices."""

import json

from crewcast.store.sqlite.session import Session

# In this order; of a run that nobody ever asked anything, the first two are none.
_ROWS = ("sweep_journal", "sweep_reviews", "sweep_dead_letters", "sweep_events", "sweep_kickoff", "sweep_run")


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
