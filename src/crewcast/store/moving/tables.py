"""Every table that is moved: its columns in PostgreSQL, and how its rows are read from SQLite.

`moved` has each run's key in PostgreSQL. A run that is hidden is not in it: what was deleted, or has expired, is
left behind, and so are nodes and the crews that they told of, which tell of themselves.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Table:
    """`select` reads in the order of `columns`, along the file, with the parameter `now`."""

    name: str
    columns: tuple[str, ...]
    select: str
    count: str


def _alone(name: str, columns: str, order: str) -> Table:
    return Table(
        name,
        tuple(columns.split()),
        f"SELECT {', '.join(columns.split())} FROM {name} ORDER BY {order}",  # noqa: S608 - ours
        f"SELECT count(*) FROM {name}",  # noqa: S608 - ours
    )


def _of_runs(
    name: str, columns: str, order: str, *, run: str = "run", instead: Mapping[str, str] | None = None
) -> Table:
    """Its rows of runs that are moved. CROSS JOIN: SQLite goes through the table in its own order, and sorts nothing."""
    others = [f"{name}.{column}" for column in columns.split()]
    for column, expression in (instead or {}).items():
        others[columns.split().index(column)] = expression
    joined = f"FROM {name} CROSS JOIN moved ON moved.key = {name}.{run}"
    return Table(
        name,
        ("key" if run == "key" else "run", *columns.split()),
        f"SELECT moved.place, {', '.join(others)} {joined} ORDER BY {order}",
        f"SELECT count(*) {joined}",
    )


TABLES = (
    _of_runs(
        "run",
        """id crew state created_at started_at finished_at attempt seq total_tasks completed_tasks current_task
        lease_token lease_until error error_detail continues priority token stop worked claimed_at""",
        "run.key",
        run="key",
        # Whoever was at work is not any more: it is for the first worker to find.
        instead={"lease_until": "iif(run.lease_until > :now, :now, run.lease_until)"},
    ),
    _of_runs("kickoff", "inputs meta options token max_attempts timeout", "kickoff.run"),
    _of_runs(
        "lane",
        """number url origin channels cursor tail settled tries due_at closed replay_of dead_only ordered auth
        refusals split_of total asked_at born since ranged""",
        "lane.run, lane.number",
        # As `void_leases` leaves a lane: nobody holds it, and with work it is due.
        instead={
            "due_at": """iif(lane.lease_token IS NULL, lane.due_at,
            iif(lane.closed IS NULL AND lane.cursor < lane.tail, coalesce(lane.due_at, :now), NULL))"""
        },
    ),
    _of_runs("subscription", "lane first last channels", "subscription.run"),
    _of_runs("event", "seq channel type at run_attempt task_id body whole", "event.id"),
    _of_runs(
        "attempt",
        "id lane seq number at verdict kind status retry_after duration detail",
        "attempt.id",
    ),
    _of_runs(
        "dead_letter",
        "id lane seq at reason origin lane_seq attempt redelivered",
        "dead_letter.id",
    ),
    _of_runs("journal", "name value", "journal.id"),
    _of_runs(
        "review",
        """id number task_id place uuid agent output asked_at expires_at on_expiry remind_every remind_at reminders
        state decision feedback pass_feedback decided_at decided_by decided_how due_at""",
        "review.id",
    ),
    _alone("idempotency", "token key fingerprint run_id at", "token, key"),
    _alone("origin", "origin state failures openings opened_at retry_at paused_until reason", "origin"),
    _alone("rotation", "number origin at until", "number"),
    _alone("master_key", "only_one id", "only_one"),
)

# The highest numbers that were ever drawn, also of rows that are gone.
LAST_ATTEMPT = """
SELECT max(coalesce((SELECT max(id) FROM attempt), 0),
           coalesce((SELECT value FROM high_water WHERE name = 'attempt'), 0),
           coalesce((SELECT max(attempt) FROM dead_letter), 0),
           coalesce((SELECT max(redelivered) FROM dead_letter), 0))
"""
LAST_OF = "SELECT seq FROM sqlite_sequence WHERE name = :name"
LAST_RUN = "SELECT coalesce(max(key), 0) FROM run"
