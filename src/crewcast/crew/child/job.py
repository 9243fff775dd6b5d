"""One job: describe a crew or flow, or run it."""

import importlib
import time
from typing import Any

from . import advice, crews, errors, events, extractors, flows, internals, project, reviews, threads
from .channel import Channel
from .journal import Journal, Unresumable, llms_of
from .stops import Control
from .tasks import TaskBook


def perform(job: dict[str, Any], channel: Channel) -> None:
    """Answer the job with one outcome: `described`, `finished` or `failed`."""
    root = job["project"]["root"]
    spent = (job.get("journal") or {}).get("spent")
    control = Control(channel, job.get("patience"), job.get("limits"), spent)
    try:
        project.enter(job["project"], job.get("storage_dir"))
        if job.get("run_id"):
            _name_run(job["run_id"])
        if job.get("stub_llm"):
            importlib.import_module(".stub", __package__).point_at(job["stub_llm"]["base_url"])
        loaded = project.load(job["project"])
        description = _describe(loaded)
    except BaseException as error:
        channel.send_last(_failed("load", errors.summary(error, root), errors.report(error), [], 0.0))
        return
    if job["op"] == "describe":
        channel.send_last(description)
    else:
        channel.send_last(_run(loaded, job, description, channel, control))


def _name_run(run_id: str) -> None:
    """Under our id in CrewAI's own traces too; releases that have no such id go without."""
    try:
        execution = importlib.import_module("crewai.execution")
    except ImportError:
        return
    execution.set_execution_uuid(run_id)


def _describe(loaded: project.Loaded) -> dict[str, Any]:
    """`inputs` are what may be given (`only`: nothing else), `required` what must be; a flow's tasks show as they begin."""
    value = loaded.value
    if flows.is_flow(value):
        shape = {
            "name": flows.name_of(value),
            "inputs": flows.inputs_of(value),
            "required": flows.required_of(value),
            "only": not flows.takes_others(value),
            "tasks": None,
            "before_kickoff": False,
        }
    else:
        required = [name for name in crews.inputs_of(value) if name not in loaded.defaults]
        shape = {
            "name": value.name,
            "inputs": required,
            "required": required,
            "only": False,
            "tasks": crews.tasks_of(value),
            "before_kickoff": bool(value.before_kickoff_callbacks),
        }
    more = [] if flows.is_flow(value) else [*advice.missing_keys(value), *reviews.warnings(value)]
    return {"op": "described", **shape, "warnings": [*loaded.warnings, *advice.pins(), *more]}


def _run(
    loaded: project.Loaded,
    job: dict[str, Any],
    description: dict[str, Any],
    channel: Channel,
    control: Control,
) -> dict[str, Any]:
    """Kick the crew or flow off, or go on with it; the outcome as a line."""
    value, root = loaded.value, job["project"]["root"]
    is_flow = flows.is_flow(value)
    journal = None
    if job.get("journal") is not None and not is_flow:
        journal = Journal(value, job["journal"], control)
        journal.answered = not internals.missing(internals.ASKING)
    refusal = (
        flows.refusal(value)
        if is_flow
        else crews.refusal(value, asks=journal is not None and journal.answered)
    )
    if refusal is not None:
        return _failed("refused", refusal, "", [], 0.0)
    book = TaskBook([] if is_flow else value.tasks)
    inputs = {**loaded.defaults, **(job.get("inputs") or {})}
    if journal is not None:
        try:
            journal.check()
            restored = journal.restore(book)
        except Unresumable as error:
            return _failed("refused", str(error), "", journal.done(), 0.0)
        inputs = inputs if restored is None else restored
        control.counted(llms_of(value))
    missing = [name for name in description["required"] if name not in inputs]
    if missing and not description["before_kickoff"]:
        # CrewAI itself looks only when there are any inputs, and else sends the braces to the model.
        return _failed("input", ", ".join(missing) + _takes(description), "", [], 0.0)
    begin = time.monotonic()

    def ended(early: extractors.Refused) -> dict[str, Any]:
        if isinstance(early, reviews.Paused):
            return {**early.line, "seconds": _since(begin)}
        return _failed(early.kind, str(early), "", book.finished(), _since(begin))

    sink = events.Sink(
        channel,
        book,
        value if is_flow else None,
        lambda early: channel.send_last(ended(early)),
        control,
        journal,
    )
    events.listen(sink)
    places = sink.places()
    if journal is not None:
        journal.attach(channel.send)
        if journal.answered:
            asking = reviews.Reviews(journal, book, job.get("decision"), sink, control, channel.send)
            places.append(asking.install())
    threads.inherit(places)
    crews.leave_places(sink.places())
    crews.release_async_tasks()
    channel.send({"op": "started", "tasks": None if is_flow else book.overview()})
    try:
        control.check()
        output, usage = flows.kick_off(value, inputs) if is_flow else crews.kick_off(value, inputs)
    except BaseException as error:
        done = sink.close("the run failed before the tool ended", completed=False)
        if sink.refusal is not None:
            return ended(sink.refusal)
        if isinstance(error, extractors.Refused):
            return ended(error)
        if is_flow and errors.has_frame(error, "_initialize_state") and not sink.methods.any_began:
            return _failed("invalid", flows.misfit(error) + _takes(description), "", [], _since(begin))
        kind, hint = "crew", ""
        if not is_flow and crews.is_missing_input(error) and not book.any_started():
            kind, hint = "input", _takes(description)
        summary = errors.summary(error, root) + hint
        return _failed(kind, summary, errors.report(error), done, _since(begin))
    if sink.refusal is not None:
        # The project has caught it and gone on.
        return ended(sink.refusal)
    done = sink.close("the run ended before the tool did", completed=True)
    return {
        "op": "finished",
        "output": output,
        "tasks": done,
        "seconds": _since(begin),
        "usage": None if usage is None else dict(usage),
    }


def _takes(description: dict[str, Any]) -> str:
    what = "flow" if description["tasks"] is None else "crew"
    return "; the " + what + " takes: " + (", ".join(description["inputs"]) or "nothing")


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
