"""How a run ends: its state and its one crew event, which belong together."""

from collections.abc import Callable, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from crewcast.contract import journal, webhooks
from crewcast.contract.webhooks import JSON, Draft
from crewcast.core import run as runs
from crewcast.core.event import Event
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
    run = replace(runs.end(run, RunState.CANCELLED, now, error=error), stop=by)
    return run, _draft(run, "error", tasks, meta, now, error=error)


def meta_of(run: Run) -> JSON | None:
    """What the kickoff wanted to be told with each task and crew event."""
    return msgspec.json.decode(run.meta) if run.meta else None


def unheld(
    end: Callable[[Run, str, Sequence[JSON], JSON | None, int], tuple[Run, Draft]],
    run: Run,
    words: str,
    kept: Mapping[str, bytes],
    now: int,
    max_event_bytes: int,
) -> tuple[Run, list[Event]]:
    """A run that nobody works on, as it ends, with its crew event.

    `end` is `stopped` with who did it in `words`, or `failed` with why; `kept` is the run's journal.
    """
    after, draft = end(run, words, list(journal.finished_tasks(kept).values()), meta_of(run), now)
    seq = run.seq + 1
    event = webhooks.encode(draft, run.id, seq, max(1, run.attempt), max_event_bytes)
    return replace(after, seq=seq), [event]


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
