"""One job: describe a crew, or run it."""

import importlib
import re
import time
from typing import Any

from . import errors, project
from .channel import Channel
from .events import Sink
from .tasks import TaskBook, role_of, stable_ids
from .wire import text

# CrewAI's own pattern of what it interpolates (crewai/utilities/string_utils.py).
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_\-]*")


def perform(job: dict[str, Any], channel: Channel) -> None:
    """Answer the job with one outcome: `described`, `finished` or `failed`."""
    root = job["project"]["root"]
    try:
        project.enter(job["project"], job.get("storage_dir"))
        if job.get("run_id"):
            _name_run(job["run_id"])
        if job.get("stub_llm"):
            importlib.import_module(".stub", __package__).point_at(job["stub_llm"]["base_url"])
        crew = project.load_crew(job["project"])
        description = _describe(crew)
    except BaseException as error:
        channel.send_last(_failed("load", errors.summary(error, root), errors.report(error), [], 0.0))
        return
    if job["op"] == "describe":
        channel.send_last(description)
    else:
        channel.send_last(_run(crew, job, description, channel))


def _name_run(run_id: str) -> None:
    """Under our id in CrewAI's own traces too; releases that have no such id go without."""
    try:
        execution = importlib.import_module("crewai.execution")
    except ImportError:
        return
    execution.set_execution_uuid(run_id)


def _describe(crew: Any) -> dict[str, Any]:
    tasks = [
        {
            "task_id": task_id,
            "agent": role_of(getattr(task, "agent", None)),
            "human_input": bool(getattr(task, "human_input", False)),
        }
        for task_id, task in zip(stable_ids(crew.tasks), crew.tasks, strict=True)
    ]
    return {
        "op": "described",
        "name": crew.name,
        # CrewAI lists whatever stands in braces, samples of JSON too; it fills in only these names.
        "inputs": sorted(name for name in crew.fetch_inputs() if VARIABLE.fullmatch(name)),
        "tasks": tasks,
        "before_kickoff": bool(crew.before_kickoff_callbacks),
    }


def _run(crew: Any, job: dict[str, Any], description: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Kick the crew off; the outcome as a line."""
    reviewed = [task["task_id"] for task in description["tasks"] if task["human_input"]]
    if reviewed:
        reason = "human_input=True is not supported yet; it is set on: " + ", ".join(reviewed)
        return _failed("human_input", reason, "", [], 0.0)
    inputs = job.get("inputs") or {}
    missing = [name for name in description["inputs"] if name not in inputs]
    if missing and not description["before_kickoff"]:
        # CrewAI itself looks only when there are any inputs, and else sends the braces to the model.
        return _failed("input", ", ".join(missing) + _takes(description), "", [], 0.0)
    book = TaskBook(crew.tasks)
    sink = Sink(channel, book)
    importlib.import_module("crewai.events.stream_context").add_stream_sink(sink)
    _release_async_tasks()
    # A streaming kickoff() returns an iterator and runs nothing until it is read.
    crew.stream = False
    channel.send({"op": "started", "tasks": book.overview()})
    begin = time.monotonic()
    try:
        result = crew.kickoff(inputs=inputs)
        outcome = {
            "op": "finished",
            # An after_kickoff callback may return anything.
            "output": text(getattr(result, "raw", result)),
            "tasks": book.finished(),
            "seconds": _since(begin),
            "usage": _usage(result),
        }
    except BaseException as error:
        sink.abandon_calls(None, "the run failed before the tool ended")
        kind, hint = "crew", ""
        if errors.has_frame(error, "_interpolate_inputs") and not book.any_started():
            kind, hint = "input", _takes(description)
        summary = errors.summary(error, job["project"]["root"]) + hint
        return _failed(kind, summary, errors.report(error), book.finished(), _since(begin))
    return outcome


def _takes(description: dict[str, Any]) -> str:
    return "; the crew takes: " + ", ".join(description["inputs"])


def _release_async_tasks() -> None:
    """CrewAI's thread for an async task hands over exceptions but no SystemExit, for which kickoff() waits for ever."""
    task_class = importlib.import_module("crewai.task").Task
    execute = getattr(task_class, "_execute_task_async", None)
    if execute is None:
        return

    def guarded(self: Any, agent: Any, context: Any, tools: Any, future: Any) -> None:
        try:
            execute(self, agent, context, tools, future)
        except BaseException as error:
            future.set_exception(error)

    task_class._execute_task_async = guarded  # noqa: SLF001 - there is no other place to catch it


def _failed(kind: str, error: str, trace: str, tasks: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    return {
        "op": "failed",
        "kind": kind,
        "error": error,
        "traceback": trace,
        "tasks": tasks,
        "seconds": seconds,
    }


def _since(begin: float) -> float:
    return round(time.monotonic() - begin, 6)


def _usage(result: Any) -> dict[str, Any] | None:
    usage = getattr(result, "token_usage", None)
    return None if usage is None else dict(usage)
