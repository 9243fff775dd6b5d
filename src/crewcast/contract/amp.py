"""What AMP answers about a run.

Where AMP's published descriptions and the deployed AMP differ, both are served side by side: `status` beside `state`.
"""

import msgspec

from crewcast.contract import terms
from crewcast.contract.problem import Problem
from crewcast.contract.webhooks import JSON
from crewcast.core import moment
from crewcast.core.event import Event
from crewcast.core.review import Review, ReviewState
from crewcast.core.run import Run, RunState, seconds

PAUSED = "awaiting_human_feedback"
STATES = {
    RunState.QUEUED: ("running", "PENDING"),
    RunState.RUNNING: ("running", "STARTED"),
    RunState.WAITING: (PAUSED, "PAUSED"),
    RunState.COMPLETED: ("completed", "SUCCESS"),
    RunState.FAILED: ("error", "FAILED"),
    RunState.CANCELLED: ("error", "REVOKED"),
}


def status(
    run: Run,
    now: int,
    crew_event: Event | None,
    total_tasks: int | None,
    review: Review | None = None,
    paused: str = PAUSED,
) -> JSON:
    """The answer of `GET /status/{kickoff_id}`; `crew_event` is the run's last if it has ended, `review` what it
    waits for, `paused` the word for that.
    """
    asks = review is not None and review.state is ReviewState.PENDING
    # One that waits in its own process waits all the same.
    word, state = STATES[RunState.WAITING if asks else run.state]
    if state == "PAUSED":
        word = paused
    total = run.total_tasks if run.total_tasks is not None else total_tasks
    body: JSON = {
        "kickoff_id": run.id,
        "execution_id": run.id,
        "crew": run.crew,
        "status": word,
        "state": state,
        "progress": {"completed_tasks": run.completed_tasks},
    }
    if (earlier := terms.of_run(run.options).rerun_of) is not None:
        body["rerun_of"] = earlier
    if total is not None:
        body["progress"]["total_tasks"] = total
    if run.current_task is not None:
        body["current_task"] = run.current_task
    if run.started_at is not None:
        body["execution_time"] = seconds(run, now)
    if asks and review is not None:
        body["awaiting"] = _awaiting(review)
    if run.stop is not None and not run.state.ended:
        body["stopping"] = True
    if crew_event is not None:
        told = msgspec.json.decode(crew_event.whole or crew_event.body)
        body |= {name: told[name] for name in ("result", "error", "execution_time") if name in told}
    if run.error_detail is not None:
        body["traceback"] = run.error_detail
    return body


def _awaiting(review: Review) -> JSON:
    told: JSON = {
        "task_id": review.task_id,
        "output": review.output,
        "review": review.number,
        "since": moment.show(review.asked_at),
    }
    if review.expires_at is not None:
        told["expires_at"] = moment.show(review.expires_at)
    return told


def no_worker(crew: str) -> JSON:
    """What the answer has beside that of a queued run which nobody who is there would take."""
    return {"waits_for": f"a worker that takes runs of {crew}: none is there"}


def log_is_elsewhere(run_id: str, node: str | None) -> Problem:
    """Logs stay with the worker; which one that was is known while it holds the run."""
    where = "another node" if node is None else f"node {node}"
    return Problem(
        404,
        "Log not here",
        f"The log of execution {run_id} lies on {where}, in the data folder of the worker that ran it: logs stay "
        "with their worker",
        {} if node is None else {"node": node},
    )


def unknown_run(run_id: str) -> Problem:
    return Problem(
        404,
        "Execution not found",
        f"There is no execution {run_id[:64]!r} here",
        state="NOT FOUND",
    )
