"""One job: describe a crew or flow, or run it."""

import importlib
from typing import Any

from . import advice, crews, errors, flows, project, reviews
from .channel import Channel
from .run import Run, failed
from .stops import Control


def perform(job: dict[str, Any], channel: Channel) -> None:
    """Answer the job with one outcome: `described`, `finished`, `failed` or `paused`."""
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
        channel.send_last(failed("load", errors.summary(error, root), errors.report(error), [], 0.0))
        return
    if job["op"] == "describe":
        channel.send_last(description)
    else:
        channel.send_last(Run(loaded, job, description, channel, control).line())


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
