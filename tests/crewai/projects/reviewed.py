# mypy: ignore-errors
"""Crews whose models, calls and effects are the same whether one process runs them or several, one after the other.

A model's replies are numbered over all processes of a run: what it was asked is kept in the project's folder. Where
`answers.json` lies there, people answer at once, as they do at a terminal: by CrewAI's own provider.
"""

import inspect
import json
from pathlib import Path

from crewai import Agent
from crewai.core.providers.human_input import SyncHumanInputProvider, set_provider
from crewai.events.types.llm_events import LLMCallType
from crewai.llms.base_llm import llm_call_context
from scripted import ScriptedLLM

CALLS, EFFECTS, ANSWERS = Path("calls.jsonl"), Path("effects.jsonl"), Path("answers.json")
# The oldest releases are not told it.
TELLS_USAGE = "usage" in inspect.signature(ScriptedLLM._emit_call_completed_event).parameters


def append(file, value):
    with file.open("a") as lines:
        lines.write(json.dumps(value, default=str) + "\n")


def read(file):
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def note(*what):
    """Something that must happen as often as at a terminal."""
    append(EFFECTS, list(what))


class NumberedLLM(ScriptedLLM):
    """Ten tokens for each call."""

    def call(self, messages, tools=None, callbacks=None, available_functions=None, from_task=None, from_agent=None,
             response_model=None):  # fmt: skip
        where = {"messages": messages, "from_task": from_task, "from_agent": from_agent}
        with llm_call_context():
            self._emit_call_started_event(tools=tools, callbacks=callbacks, available_functions=None, **where)
            number = sum(call["llm"] == self.model for call in read(CALLS))
            append(CALLS, {"llm": self.model, "messages": messages})
            reply = self._replies[number]
            if callable(reply):
                reply = reply()
            if isinstance(reply, BaseException):
                self._emit_call_failed_event(error=str(reply), from_task=from_task, from_agent=from_agent)
                raise reply
            kind = LLMCallType.TOOL_CALL if isinstance(reply, list) else LLMCallType.LLM_CALL
            usage = {"prompt_tokens": 6, "completion_tokens": 4, "total_tokens": 10}
            self._track_token_usage_internal(usage)
            if TELLS_USAGE:
                where["usage"] = usage
            self._emit_call_completed_event(response=reply, call_type=kind, **where)
            return reply

    async def acall(self, *arguments, **named):
        return self.call(*arguments, **named)


def llm(name, *replies, native=False):
    made = NumberedLLM(model=name)
    made.native, made._replies = native, list(replies)
    return made


def worker(*replies, role="Worker", native=False, tools=(), **fields):
    return Agent(
        role=role, goal="find", backstory="curious", llm=llm(role, *replies, native=native), tools=list(tools), **fields
    )  # fmt: skip


class AtATerminal(SyncHumanInputProvider):
    """What is typed comes from a file."""

    @staticmethod
    def _prompt_input(crew):
        first, *rest = json.loads(ANSWERS.read_text())
        ANSWERS.write_text(json.dumps(rest))
        return first

    @staticmethod
    async def _prompt_input_async(crew):
        return AtATerminal._prompt_input(crew)


def ready(crew):
    """The crew as it is, or with people at hand: then its tasks ask once they run, which the child does not see."""
    if not ANSWERS.exists():
        return crew
    from crewai.hooks import InterceptionPoint, register_hook

    asking = [task for task in crew.tasks if task.human_input]
    for task in asking:
        task.human_input, task.async_execution = False, False

    def ask(step):
        if any(step.task is task for task in asking):
            step.task.human_input = True

    register_hook(InterceptionPoint.PRE_STEP, ask)
    set_provider(AtATerminal())
    return crew
