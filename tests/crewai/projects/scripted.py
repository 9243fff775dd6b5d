# mypy: ignore-errors
"""A language model that says what it is told to, and crews made of few words."""

import gc
import json
import sys
import time

from crewai import Agent, Crew, Task
from crewai.events.types.llm_events import LLMCallType
from crewai.llms.base_llm import BaseLLM, llm_call_context
from pydantic import PrivateAttr


class ScriptedLLM(BaseLLM):
    native: bool = False
    _replies: list = PrivateAttr(default_factory=list)

    @classmethod
    def saying(cls, *replies, native=False):
        llm = cls(model="scripted")
        llm.native, llm._replies = native, list(replies)
        return llm

    def supports_function_calling(self):
        return self.native

    def supports_stop_words(self):
        return False

    def get_context_window_size(self):
        return 100_000

    def call(
        self,
        messages,
        tools=None,
        callbacks=None,
        available_functions=None,
        from_task=None,
        from_agent=None,
        response_model=None,
    ):
        where = {"messages": messages, "from_task": from_task, "from_agent": from_agent}
        with llm_call_context():
            self._emit_call_started_event(
                tools=tools, callbacks=callbacks, available_functions=available_functions, **where
            )
            reply = self._replies.pop(0)
            if callable(reply):
                reply = reply()
            if isinstance(reply, BaseException):
                self._emit_call_failed_event(error=str(reply), from_task=from_task, from_agent=from_agent)
                raise reply
            kind = LLMCallType.TOOL_CALL if isinstance(reply, list) else LLMCallType.LLM_CALL
            self._emit_call_completed_event(response=reply, call_type=kind, **where)
            return reply


def use(tool, **arguments):
    """A ReAct step."""
    return f"Thought: I need {tool}.\nAction: {tool}\nAction Input: {json.dumps(arguments)}"


def call(tool, call_id="call_1", **arguments):
    """A native tool call, to be put in a list."""
    function = {"name": tool, "arguments": json.dumps(arguments)}
    return {"id": call_id, "type": "function", "function": function}


def answer(text):
    return f"Thought: I know.\nFinal Answer: {text}"


def agent(*replies, native=False, role="Researcher", tools=(), **fields):
    llm = ScriptedLLM.saying(*replies, native=native)
    return Agent(role=role, goal="find", backstory="curious", llm=llm, tools=list(tools), **fields)


def task(worker, name=None, description="Find it.", **fields):
    return Task(name=name, description=description, expected_output="facts", agent=worker, **fields)


def crew(*tasks, **fields):
    workers = []
    for each in tasks:
        if each.agent is not None and each.agent not in workers:
            workers.append(each.agent)
    return Crew(name="lab", agents=workers, tasks=list(tasks), **fields)


def committed(count):
    """Wait until the server has committed the ends of so many tasks of this process."""
    kind = sys.modules["_crewcast_child.channel"].Channel
    channel = next(each for each in gc.get_objects() if type(each) is kind)
    while channel._acknowledged < count:
        time.sleep(0.01)
