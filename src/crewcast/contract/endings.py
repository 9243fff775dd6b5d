"""How a run ends: its state and its one crew event, which belong together."""

from collections.abc import Sequence

from crewcast.contract import webhooks
from crewcast.contract.webhooks import JSON, Draft
from crewcast.core import run as runs
from crewcast.core.run import Run, RunState


def completed(run: Run, output: str, tasks: Sequence[JSON], meta: JSON | None, now: int) -> tuple[Run, Draft]:
    """The run as it ended well, and what is told of it. `tasks` are the finished ones."""
    run = runs.end(run, RunState.COMPLETED, now)
    return run, _draft(run, "completed", tasks, meta, now, output=output)


def failed(
    run: Run, error: str, tasks: Sequence[JSON], meta: JSON | None, now: int, detail: str | None = None
) -> tuple[Run, Draft]:
    """The run as it failed, with what it had finished. `detail` is a traceback, for the status alone."""
    run = runs.end(run, RunState.FAILED, now, error=error, detail=detail)
    return run, _draft(run, "error", tasks, meta, now, error=error)


def stopped(run: Run, by: str, tasks: Sequence[JSON], meta: JSON | None, now: int) -> tuple[Run, Draft]:
    """The run as somebody stopped it, with what it had finished."""
    error = f"stopped by {by}"
    run = runs.end(run, RunState.CANCELLED, now, error=error)
    return run, _draft(run, "error", tasks, meta, now, error=error)


def _draft(
    run: Run,
    status: str,
    tasks: Sequence[JSON],
    meta: JSON | None,
    now: int,
    *,
    output: str | None = None,
    error: str | None = None,
) -> Draft:
    return webhooks.crew_completed(
        run.id,
        status,
        now,
        output=output,
        tasks=list(tasks),
        error=error,
        execution_time=runs.seconds(run, now),
        meta=meta,
    )
