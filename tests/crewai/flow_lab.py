"""Flows of few words, run by a real child, and what must be true of whatever they tell."""

import shutil
import textwrap
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from crewcast.contract import webhooks
from crewcast.contract.webhooks import Draft
from crewcast.crew.mapping import Mapping
from crewcast.crew.project import discover
from tests.crewai.driver import PROJECTS
from tests.support.receiver import check_body

# Without what CrewAI gives each flow, a memory that hardly any flow here uses: its import (lancedb) is two thirds of
# the work of such a process. A test that is about it, or of whole projects, has it.
HEADER = '''
import asyncio, contextvars, os, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from crewai import Crew, Process, Task
from crewai.flow.flow import Flow, and_, listen, or_, router, start
Flow._skip_auto_memory = True
from crewai.tools import tool
from pydantic import BaseModel
from scripted import ScriptedLLM, agent, answer, call, crew, task, use

async def acall(self, *arguments, **named):
    return await asyncio.to_thread(self.call, *arguments, **named)
ScriptedLLM.acall = acall

@tool("Look Up")
def look_up(word: str) -> str:
    """Look a word up."""
    return word.upper()

def say(text, name=None, role="R", **fields):
    """A crew of one task that says this."""
    return crew(task(agent(answer(text), role=role), name or text), **fields)
'''
# What an agent that uses a tool once tells of its task; one without a tool tells the last of these alone.
REACT = ["thought", "action", "tool_call", "tool_result", "observation", "thought"]


def flow_lab(folder, code, header=HEADER):
    """A project whose `main.py` is this, as it is recognised."""
    source = folder / "src/lab"
    source.mkdir(parents=True)
    (source / "__init__.py").touch()
    (source / "main.py").write_text(header + textwrap.dedent(code), "utf-8")
    shutil.copy(PROJECTS / "scripted.py", folder / "src/scripted.py")
    return discover(folder)


@dataclass
class Told:
    """What one run told, in the document's words."""

    lines: list[dict[str, Any]]
    log: str
    drafts: list[Draft] = field(default_factory=list)

    @property
    def outcome(self) -> dict[str, Any]:
        return self.lines[-1]

    @property
    def tasks(self) -> list[tuple[str, str, str | None]]:
        """Id, status and output of each TaskCompleted, in order."""
        told = [draft.payload for draft in self.drafts if draft.type.startswith("task.")]
        return [(each["task_id"], each["status"], each.get("output")) for each in told]

    @property
    def steps(self) -> list[tuple[str | None, str, Any]]:
        """Task, type and what it says, in order."""
        told = [draft.payload for draft in self.drafts if draft.type == "step"]
        return [
            (each.get("task_id"), each["step"]["type"], each["step"].get("content", each["step"].get("tool")))
            for each in told
        ]

    def agents(self) -> dict[str | None, set[str | None]]:
        """Whose steps each task has."""
        found: dict[str | None, set[str | None]] = {}
        for draft in self.drafts:
            if draft.type == "step":
                found.setdefault(draft.task_id, set()).add(draft.payload.get("agent"))
        return found


def kinds_of(told: Told) -> dict[str | None, list[str]]:
    """The types of each task's steps."""
    found: dict[str | None, list[str]] = {}
    for task_id, kind, _ in told.steps:
        found.setdefault(task_id, []).append(kind)
    return found


def tell(child) -> Told:
    """Run the child to its end, and hold what it told to what is true of every run."""
    lines = child.rest()
    told = Told(lines, child.log())
    assert child.status() == 0, told.log
    assert "could not be read" not in told.log, told.log
    outcome = told.outcome
    assert [line["op"] for line in lines if line["op"] in ("finished", "failed")] == [outcome["op"]]
    numbers = [line["sync"] for line in lines if "sync" in line]
    assert numbers == list(range(1, len(numbers) + 1))
    mapping = Mapping(child.run_id)
    for line in lines:
        if line["op"] == "event":
            told.drafts += mapping.drafts(line)
    told.drafts.append(_crew_event(child.run_id, outcome))
    problems = [
        problem
        for draft in told.drafts
        for problem in check_body(str(draft.channel.name).lower(), draft.payload)
    ]
    assert problems == []
    _check_tasks(told)
    _check_tools(told)
    return told


def _crew_event(run_id: str, outcome: dict[str, Any]) -> Draft:
    """As the worker makes it of the child's outcome."""
    if outcome["op"] == "finished":
        return webhooks.crew_completed(
            run_id,
            "completed",
            0,
            output=outcome["output"],
            tasks=outcome["tasks"],
            execution_time=outcome["seconds"],
        )
    return webhooks.crew_completed(
        run_id, "error", 0, tasks=outcome["tasks"], error=outcome["error"], execution_time=outcome["seconds"]
    )


def _check_tasks(told: Told) -> None:
    ended: list[str] = []
    stepped: set[str] = set()
    for draft in told.drafts:
        if draft.type == "step" and draft.task_id is not None:
            assert draft.task_id not in ended, f"a step of {draft.task_id} after its end"
            stepped.add(draft.task_id)
        elif draft.type.startswith("task."):
            assert draft.task_id is not None
            if "agent" in draft.payload:
                assert draft.task_id in stepped, f"{draft.task_id} has no step"
            ended.append(draft.task_id)
    assert len(ended) == len(set(ended)), f"a task that ended twice: {ended}"
    if told.outcome["op"] == "finished":
        assert stepped <= set(ended), f"tasks that never ended: {stepped - set(ended)}"
    completed = [
        {
            name: draft.payload[name]
            for name in ("task_id", "agent", "output", "execution_time")
            if name in draft.payload
        }
        for draft in told.drafts
        if draft.type == "task.completed"
    ]
    listed = told.outcome["tasks"]
    assert sorted(listed, key=lambda each: each["task_id"]) == sorted(
        completed, key=lambda each: each["task_id"]
    )


def _check_tools(told: Told) -> None:
    open_calls: Counter[tuple[Any, ...]] = Counter()
    for draft in told.drafts:
        if draft.type != "step":
            continue
        step = draft.payload["step"]
        key = (draft.task_id, step.get("tool"))
        if step["type"] == "tool_call":
            open_calls[key] += 1
        elif step["type"] == "tool_result":
            assert open_calls[key] > 0, f"a result without its call: {key}"
            open_calls[key] -= 1
    assert not +open_calls, f"calls without a result: {+open_calls}"
