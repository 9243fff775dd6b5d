"""CrewAI's events as lines for the server.

The sink is called in the thread that emits, for every event of this run, in order. To send one more type, add a
function to `EXTRACTORS`: it copies what is needed (events are live objects) and returns the line's fields.
"""

import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from .channel import Channel
from .tasks import TaskBook, role_of
from .tools import Call, OpenCalls
from .wire import text

Fields = dict[str, Any]


class Sink:
    """What `add_stream_sink` takes. It never raises: CrewAI would take that for the agent's failure and try again."""

    def __init__(self, channel: Channel, book: TaskBook) -> None:
        self.book = book
        self.calls = OpenCalls()
        self._channel = channel

    def __call__(self, source: Any, event: Any) -> None:
        try:
            extract = EXTRACTORS.get(event.type)
            fields = extract(self, source, event) if extract is not None else None
            if fields is not None:
                self._send(event.type, fields)
        except Exception:
            sys.stderr.write("crewcast: an event of CrewAI could not be read\n")
            traceback.print_exc()

    def abandon_calls(self, task_id: str | None, reason: str) -> None:
        """Give the calls that will never end (of one task, or of all) a result."""
        for call in self.calls.abandon(task_id):
            self._send("tool_usage_error", {**_result(call), "args": call.args, "error": reason})

    def _send(self, kind: str, fields: Fields) -> None:
        line = {"op": "event", "type": kind, "at": time.time_ns() // 1000}
        line.update((name, value) for name, value in fields.items() if value is not None)
        if kind in TASK_ENDS:
            # The crew goes on when the server has committed: a task is finished when its checkpoint is.
            self._channel.send_and_wait(line)
        else:
            self._channel.send(line)


def _task_started(sink: Sink, source: Any, event: Any) -> Fields | None:
    task_id = sink.book.known(event.task_id)
    if task_id is None:
        # A crew inside a tool has tasks of its own, which are nobody's business.
        return None
    sink.book.start(task_id)
    return {"task_id": task_id, "agent": role_of(getattr(source, "agent", None))}


def _task_completed(sink: Sink, source: Any, event: Any) -> Fields | None:
    task_id = sink.book.known(event.task_id)
    if task_id is None:
        return None
    sink.abandon_calls(task_id, "the task ended before the tool did")
    seconds = sink.book.seconds(task_id)
    agent = text(event.output.agent).strip() or role_of(getattr(source, "agent", None))
    output = text(event.output.raw)
    sink.book.finish(task_id, agent, output, seconds)
    return {"task_id": task_id, "agent": agent, "output": output, "execution_time": seconds}


def _task_failed(sink: Sink, source: Any, event: Any) -> Fields | None:
    task_id = sink.book.known(event.task_id)
    if task_id is None:
        return None
    sink.abandon_calls(task_id, "the task failed before the tool ended")
    return {
        "task_id": task_id,
        "agent": role_of(getattr(source, "agent", None)),
        "error": text(event.error),
        "execution_time": sink.book.seconds(task_id),
    }


def _llm_call_completed(sink: Sink, source: Any, event: Any) -> Fields:
    response = event.response
    return {
        **_whose(sink, source, event),
        "response": response if isinstance(response, str) and response else None,
        "call_type": text(getattr(event.call_type, "value", event.call_type)),
    }


def _tool_usage_started(sink: Sink, source: Any, event: Any) -> Fields:
    call = Call(
        event.event_id, _mode(source), event.tool_name, event.tool_args, **_whose(sink, source, event)
    )
    sink.calls.start(call)
    return {
        "task_id": call.task_id,
        "agent": call.agent,
        "mode": call.mode,
        "tool": call.tool,
        "args": call.args,
        "event_id": call.event_id,
    }


def _tool_usage_finished(sink: Sink, source: Any, event: Any) -> Fields | None:
    call = _ended_call(sink, source, event)
    if call is None:
        return None
    outcome = {"output": text(event.output), "from_cache": bool(event.from_cache)}
    return {**_result(call), "args": event.tool_args, **outcome}


def _tool_usage_error(sink: Sink, source: Any, event: Any) -> Fields | None:
    call = _ended_call(sink, source, event)
    if call is None:
        return None
    return {**_result(call), "args": event.tool_args, "error": _error(event.error)}


def _tool_refused(sink: Sink, source: Any, event: Any) -> Fields | None:
    """A call that never starts: the model named a tool that is not there, or wrote arguments that are none."""
    if not sink.calls.refuse(source):
        return None
    # The event of an unknown tool has no arguments; the action that was parsed has.
    action = getattr(source, "action", None)
    return {
        **_whose(sink, source, event),
        "mode": _mode(source),
        "tool": event.tool_name,
        "args": event.tool_args or getattr(action, "tool_input", None) or {},
        "error": _error(event.error),
    }


def _agent_reasoning_completed(sink: Sink, source: Any, event: Any) -> Fields:
    return {**_whose(sink, source, event), "plan": text(event.plan)}


Extractor = Callable[[Sink, Any, Any], Fields | None]
# `tool_execution_error` is absent: CrewAI defines it and emits it nowhere. A tool that raises is a `tool_usage_error`.
EXTRACTORS: dict[str, Extractor] = {
    "task_started": _task_started,
    "task_completed": _task_completed,
    "task_failed": _task_failed,
    "llm_call_completed": _llm_call_completed,
    "tool_usage_started": _tool_usage_started,
    "tool_usage_finished": _tool_usage_finished,
    "tool_usage_error": _tool_usage_error,
    "tool_validate_input_error": _tool_refused,
    "tool_selection_error": _tool_refused,
    "agent_reasoning_completed": _agent_reasoning_completed,
}
TASK_ENDS = frozenset({"task_completed", "task_failed"})


def _whose(sink: Sink, source: Any, event: Any) -> dict[str, str | None]:
    """The task and the agent of an event.

    The live agent comes first: some events carry the role as it was written, `{topic}` and all.
    """
    agent = role_of(getattr(event, "agent", None)) or role_of(getattr(source, "agent", None))
    if agent is None and event.agent_role:
        agent = text(event.agent_role).strip()
    task = getattr(event, "task", None)
    uuid = event.task_id or getattr(task, "id", None)
    return {"task_id": sink.book.attributed(uuid), "agent": agent or role_of(getattr(task, "agent", None))}


def _mode(source: Any) -> str:
    return "react" if type(source).__name__ == "ToolUsage" else "native"


def _ended_call(sink: Sink, source: Any, event: Any) -> Call | None:
    task_id = _whose(sink, source, event)["task_id"]
    return sink.calls.end(event.started_event_id, event.tool_name, task_id)


def _result(call: Call) -> Fields:
    return {
        "task_id": call.task_id,
        "agent": call.agent,
        "mode": call.mode,
        "tool": call.tool,
        "started_event_id": call.event_id,
    }


def _error(error: Any) -> str:
    return text(error) or type(error).__name__
