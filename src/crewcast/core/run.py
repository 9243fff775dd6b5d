"""A run and its states. The table of transitions below is the truth; the schema repeats it."""

from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace


class RunState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self in ENDED


ENDED = frozenset({RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED})

TRANSITIONS: dict[RunState, frozenset[RunState]] = {
    RunState.QUEUED: frozenset({RunState.RUNNING, RunState.FAILED, RunState.CANCELLED}),
    RunState.RUNNING: frozenset(
        {RunState.WAITING, RunState.QUEUED, RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED}
    ),
    RunState.WAITING: frozenset({RunState.QUEUED, RunState.FAILED, RunState.CANCELLED}),
    RunState.COMPLETED: frozenset(),
    RunState.FAILED: frozenset(),
    RunState.CANCELLED: frozenset(),
}


class Run(Struct, frozen=True, gc=False):
    """One execution of a crew. `inputs`, `meta` and `options` are JSON texts as bytes.

    `options` keeps what the kickoff named and is not served yet. `seq` is the number of the last
    event in the log. `error` is one or a few lines for people, `error_detail` a traceback.
    """

    id: str
    crew: str
    state: RunState
    inputs: bytes
    created_at: int
    meta: bytes | None = None
    options: bytes | None = None
    token: str = ""
    started_at: int | None = None
    finished_at: int | None = None
    attempt: int = 0
    seq: int = 0
    total_tasks: int | None = None
    completed_tasks: int = 0
    current_task: str | None = None
    error: str | None = None
    error_detail: str | None = None
    lease_token: str | None = None
    lease_until: int | None = None


def new_run(
    run_id: str,
    crew: str,
    inputs: bytes,
    now: int,
    *,
    meta: bytes | None = None,
    options: bytes | None = None,
    token: str = "",
) -> Run:
    return Run(
        id=run_id,
        crew=crew,
        state=RunState.QUEUED,
        inputs=inputs,
        created_at=now,
        meta=meta,
        options=options,
        token=token,
    )


def move(run: Run, state: RunState) -> Run:
    """The run in `state`.

    Raises ValueError for a transition that the table does not have: that is a defect of ours.
    """
    if state not in TRANSITIONS[run.state]:
        raise ValueError(f"run {run.id}: no way from {run.state} to {state}")
    return replace(run, state=state)


def claim(run: Run, lease_token: str, now: int, lease: int) -> Run:
    """The run as its worker holds it: running, one attempt more, leased until `now + lease`."""
    return replace(
        move(run, RunState.RUNNING),
        attempt=run.attempt + 1,
        started_at=run.started_at or now,
        lease_token=lease_token,
        lease_until=now + lease,
    )


def progress(
    run: Run,
    *,
    total_tasks: int | None = None,
    completed_tasks: int | None = None,
    current_task: str | None = None,
) -> Run:
    return replace(
        run,
        total_tasks=run.total_tasks if total_tasks is None else total_tasks,
        completed_tasks=run.completed_tasks if completed_tasks is None else completed_tasks,
        current_task=run.current_task if current_task is None else current_task,
    )


def end(run: Run, state: RunState, now: int, *, error: str | None = None, detail: str | None = None) -> Run:
    """The run as it ended: its lease is given back with the write that ends it."""
    return replace(
        move(run, state),
        finished_at=now,
        current_task=None,
        error=error,
        error_detail=detail,
        lease_token=None,
        lease_until=None,
    )


def seconds(run: Run, now: int) -> float:
    """How long the run has worked, in seconds with milliseconds."""
    if run.started_at is None:
        return 0.0
    return round(max(0, (run.finished_at or now) - run.started_at) / 1_000_000, 3)
