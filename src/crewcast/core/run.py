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

    `attempt` counts the tries; with `continues` the next claim is none, since the run goes on after a decision.
    Of queued runs one with a higher `priority` goes first. `stop` is who asked to stop it, in words. `worked` are
    the microseconds of work before this claim, which began at `claimed_at`; a wait for a person is no work.
    `max_attempts` and `timeout` (microseconds of work in all) are limits that others hold it to.
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
    continues: bool = False
    priority: int = 0
    stop: str | None = None
    max_attempts: int | None = None
    timeout: int | None = None
    worked: int = 0
    claimed_at: int | None = None


def new_run(
    run_id: str,
    crew: str,
    inputs: bytes,
    now: int,
    *,
    meta: bytes | None = None,
    options: bytes | None = None,
    token: str = "",
    priority: int = 0,
    max_attempts: int | None = None,
    timeout: int | None = None,
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
        priority=priority,
        max_attempts=max_attempts,
        timeout=timeout,
    )


def move(run: Run, state: RunState) -> Run:
    """The run in `state`.

    Raises ValueError for a transition that the table does not have: that is a defect of ours.
    """
    if state not in TRANSITIONS[run.state]:
        raise ValueError(f"run {run.id}: no way from {run.state} to {state}")
    return replace(run, state=state)


def claim(run: Run, lease_token: str, now: int, lease: int) -> Run:
    """The run as its worker holds it: running, leased until `now + lease`, and one attempt more unless it
    `continues`.
    """
    return replace(
        move(run, RunState.RUNNING),
        attempt=run.attempt + (not run.continues),
        started_at=run.started_at or now,
        lease_token=lease_token,
        lease_until=now + lease,
        continues=False,
        claimed_at=now,
    )


def pause(run: Run, now: int) -> Run:
    """The run as it waits for a person: nobody holds it."""
    return _let_go(move(run, RunState.WAITING), now)


def resume(run: Run) -> Run:
    """A run that waited, queued to go on after a decision: its next claim is no new attempt."""
    if run.state is not RunState.WAITING:
        raise ValueError(f"run {run.id}: it is {run.state} and waits for no decision")
    return replace(move(run, RunState.QUEUED), continues=True)


def requeue(run: Run, now: int) -> Run:
    """A running run given back to be tried again. `now` is when it was last known to be at work."""
    if run.state is not RunState.RUNNING:
        raise ValueError(f"run {run.id}: it is {run.state}, so nobody can give it back")
    return _let_go(move(run, RunState.QUEUED), now)


def _let_go(run: Run, now: int) -> Run:
    return replace(
        run, worked=work(run, now), claimed_at=None, lease_token=None, lease_until=None, continues=False
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
        _let_go(move(run, state), now),
        finished_at=now,
        current_task=None,
        error=error,
        error_detail=detail,
    )


def work(run: Run, now: int) -> int:
    """The microseconds that the run has been at work in all, in every process that held it."""
    return run.worked if run.claimed_at is None else run.worked + max(0, now - run.claimed_at)


def seconds(run: Run, now: int) -> float:
    """The same in seconds with milliseconds."""
    return round(work(run, now) / 1_000_000, 3)
