"""A run that begins from another one's finished tasks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from crewcast.contract.problem import Problem, invalid, json_object
from crewcast.contract.webhooks import JSON
from crewcast.core.run import Run

# Of a journal, what a new run takes over beside the finished tasks themselves. What was used up begins anew.
RUN, SKIPPED, TASK, COMMENT = "run", "skipped", "task:", "comment:"


@dataclass(frozen=True, slots=True)
class Rerun:
    """`from_task` is a task's name, its number from 1, or None for the first that was not finished. `kickoff` is the
    rest of the request, with the inputs and the meta of the run before where it has none of its own.
    """

    from_task: str | None
    inputs: JSON
    kickoff: JSON

    def named(self, name: str) -> bool:
        return self.kickoff.get(name) is not None


def parse_rerun(body: bytes, before: Run) -> Rerun:
    """Raises Problem: 400 for what is not a JSON object, 422 for what is wrong in it. The kickoff is not looked at."""
    request = json_object(body)
    task = request.pop("from_task", None)
    if task is not None and (isinstance(task, bool) or not isinstance(task, (str, int))):
        raise invalid("from_task", "must be a task's name, or its number from 1")
    inputs = request.get("inputs") or {}
    if not isinstance(inputs, dict):
        raise invalid("inputs", "must be an object of the inputs that change")
    request["inputs"] = {**msgspec.json.decode(before.inputs), **inputs}
    if "meta" not in request and before.meta is not None:
        request["meta"] = msgspec.json.decode(before.meta)
    return Rerun(None if task is None else str(task), inputs, request)


@dataclass(frozen=True, slots=True)
class Taken:
    """What a new run takes over: entries for its journal, how many tasks are done, and the task it begins with."""

    journal: dict[str, bytes]
    done: int
    first: str


def take_over(run: Run, kept: Mapping[str, bytes], asked: Rerun) -> Taken:
    """Raises Problem 422 for a task that the run does not have, or that comes behind one that was not finished."""
    began: JSON | None = msgspec.json.decode(kept[RUN]) if RUN in kept else None
    if began is None or "problem" in began:
        why = "" if began is None else f": {began['problem']}"
        raise invalid(
            "from_task", f"cannot be met: run {run.id} kept nothing that another run could begin from{why}"
        )
    tasks: list[str] = began["tasks"]
    skipped: list[str] = msgspec.json.decode(kept[SKIPPED]) if SKIPPED in kept else []
    finished = [task for task in tasks if TASK + task in kept or task in skipped]
    if asked.from_task is None:
        at = next((n for n, task in enumerate(tasks) if task not in finished), len(tasks) - 1)
    else:
        at = _place(asked.from_task, tasks)
    missing = [task for task in tasks[:at] if task not in finished]
    if missing:
        raise invalid(
            "from_task", f"is {tasks[at]!r}, and these before it were not finished: {', '.join(missing)}"
        )
    before = tasks[:at]
    if not before:
        return Taken({}, 0, tasks[0])
    began["inputs"] = {**began["inputs"], **asked.inputs}
    entries: dict[str, Any] = {RUN: began}
    if behind := [task for task in skipped if task in before]:
        entries[SKIPPED] = behind
    journal = {name: msgspec.json.encode(value) for name, value in entries.items()}
    for task in before:
        journal |= {name: kept[name] for name in (TASK + task, COMMENT + task) if name in kept}
    return Taken(journal, sum(TASK + task in kept for task in before), tasks[at])


def not_ended(run: Run) -> Problem:
    return Problem(
        400,
        "Bad Request",
        f"Run {run.id} is {run.state}; only one that has ended can be run again. Stop it first, or wait",
        {"kickoff_id": run.id, "state": run.state},
    )


def _place(named: str, tasks: list[str]) -> int:
    if named in tasks:
        return tasks.index(named)
    if named.isascii() and named.isdecimal() and len(named) < 6 and 1 <= int(named) <= len(tasks):
        return int(named) - 1
    raise invalid("from_task", f"is no task of the run; there are: {', '.join(tasks)}")
