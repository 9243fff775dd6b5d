"""Which steps a later try of their run has made void.

    superseded = Superseded("steps.db")

    for event_id, void in superseded.see(delivery).items():
        steps.mark(event_id, void)

A run that is taken up again after a crash goes on behind its last finished task; the task that was at work is
tried anew, and tells its steps anew. Those of the abandoned try were delivered and stay true, but they led to
nothing. `crewcast-run-attempt` tells the tries apart.
"""

import time
from collections.abc import Callable

from crewcast.webhooks.events import StepEvent, TaskEvent
from crewcast.webhooks.file import File, Path
from crewcast.webhooks.verification import Delivery

DAY = 86400.0
KEEP = 30 * DAY
SLICE = 100  # old runs that go at once


class Superseded:
    """Give it every delivery of a run, of all its URLs, in any order: without task events the steps of finished
    tasks would count as abandoned. Threads may share one, and with a `path` processes and restarts. What was not
    touched for `keep` seconds is forgotten.

    A step is superseded when a later attempt of its run is known and its own attempt brought it to no end: no
    event of its task, whatever its status, came after it in that attempt. A task event that comes late, because
    it goes to another URL, takes that back. A wait for a person is such an end, also if the person has the task
    done again: a decision begins no new attempt, and what was judged was made.
    """

    def __init__(
        self, path: Path | None = None, *, keep: float = KEEP, clock: Callable[[], float] = time.time
    ) -> None:
        self._keep = keep
        self._clock = clock
        self._file = File(path, _SCHEMA)

    def close(self) -> None:
        self._file.close()

    def see(self, delivery: Delivery) -> dict[str, bool]:
        """Notes a delivery; the ids of steps that are superseded as of now (True), or not after all (False)."""
        run, event = delivery.kickoff_id, delivery.event
        now, attempt, seq = self._clock(), delivery.run_attempt, delivery.run_seq
        changed: dict[str, bool] = {}
        if attempt < 1:
            return changed
        with self._file.transaction() as db:
            for (old,) in db.execute(
                "SELECT kickoff_id FROM run WHERE at < ? ORDER BY at LIMIT ?", (now - self._keep, SLICE)
            ).fetchall():
                for table in ("step", "ended", "run"):
                    db.execute(f"DELETE FROM {table} WHERE kickoff_id = ?", (old,))  # noqa: S608 - the three above
            db.execute(
                "INSERT INTO run (kickoff_id, attempt, at) VALUES (?1, ?2, ?3) "
                "ON CONFLICT DO UPDATE SET attempt = max(attempt, ?2), at = ?3",
                (run, attempt, now),
            )
            if isinstance(event, TaskEvent):
                which = run, event.task_id, attempt, seq
                db.execute(
                    "INSERT INTO ended (kickoff_id, task_id, attempt, seq) VALUES (?1, ?2, ?3, ?4) "
                    "ON CONFLICT DO UPDATE SET seq = max(seq, ?4)",
                    which,
                )
                rows = db.execute(
                    "DELETE FROM step WHERE kickoff_id = ? AND task_id = ? AND attempt = ? AND seq <= ? "
                    "RETURNING id, void",
                    which,
                ).fetchall()
                changed = {event_id: False for event_id, void in rows if void}
            elif isinstance(event, StepEvent) and event.task_id is not None:
                db.execute(
                    "INSERT OR IGNORE INTO step (id, kickoff_id, task_id, attempt, seq, void) "
                    "SELECT ?1, ?2, ?3, ?4, ?5, 0 WHERE NOT EXISTS (SELECT 1 FROM ended "
                    "WHERE kickoff_id = ?2 AND task_id = ?3 AND attempt = ?4 AND seq >= ?5)",
                    (delivery.id, run, event.task_id, attempt, seq),
                )
            rows = db.execute(
                "UPDATE step SET void = 1 WHERE kickoff_id = ?1 AND NOT void "
                "AND attempt < (SELECT attempt FROM run WHERE kickoff_id = ?1) RETURNING id",
                (run,),
            ).fetchall()
        return changed | {event_id: True for (event_id,) in rows}

    def of(self, kickoff_id: str) -> set[str]:
        """The ids of the run's steps that are superseded."""
        with self._file.transaction() as db:
            rows = db.execute("SELECT id FROM step WHERE kickoff_id = ? AND void", (kickoff_id,)).fetchall()
        return {event_id for (event_id,) in rows}


_SCHEMA = """
CREATE TABLE IF NOT EXISTS run (kickoff_id TEXT PRIMARY KEY, attempt INTEGER NOT NULL, at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS run_at ON run (at);
CREATE TABLE IF NOT EXISTS step (
    id         TEXT PRIMARY KEY,
    kickoff_id TEXT NOT NULL,
    task_id    TEXT NOT NULL,
    attempt    INTEGER NOT NULL,
    seq        INTEGER NOT NULL,
    void       INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS step_of ON step (kickoff_id, task_id, attempt);
CREATE TABLE IF NOT EXISTS ended (
    kickoff_id TEXT NOT NULL,
    task_id    TEXT NOT NULL,
    attempt    INTEGER NOT NULL,
    seq        INTEGER NOT NULL,
    PRIMARY KEY (kickoff_id, task_id, attempt)
);
"""
