"""CrewAI's events as lines for the server.

The sink is called in the thread that emits, for every event of this process, in order. To send one more type, add a
function to `EXTRACTORS`: it copies what is needed (events are live objects) and returns the line's fields.
"""

import importlib
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from .channel import Channel
from .flows import Methods
from .tasks import TaskBook, role_of
from .tools import Call, OpenCalls
from .wire import as_text, text

Fields = dict[str, Any]


class Refused(BaseException):
    """Ends a run that a server cannot go on with. No Exception: CrewAI would have the agent try again."""


class Sink:
    """Hears every event. It raises nothing but Refused: CrewAI would take that for the agent's failure and try again.

    `flow` is the flow that is run, if it is one: its crews' tasks and its methods are the run's tasks.
    """

    def __init__(self, channel: Channel, book: TaskBook, flow: Any = None) -> None:
        self.book = book
        self.flow = flow
        self.methods = Methods(book)
        self.calls = OpenCalls()
        self._channel = channel

    def __call__(self, source: Any, event: Any) -> None:
        try:
            extract = EXTRACTORS.get(event.type)
            fields = extract(self, source, event) if extract is not None else None
            if fields is not None:
                self._send(fields.pop("type", event.type), fields)
        except Exception:
            sys.stderr.write("crewcast: an event of CrewAI could not be read\n")
            traceback.print_exc()

    def place(self, uuid: Any) -> str | None:
        """The task that an event belongs to: its own; for delegated work and nested crews the one around it; else
        the flow's method. In a thread that inherited no context, what is at work.
        """
        task_id = self.book.known(uuid) or self.book.current()
        if task_id is not None:
            return task_id
        if not self.methods.inside() and (task_id := self.book.newest()) is not None:
            return task_id
        method = self.methods.current()
        if method is None:
            return None
        method.stepped = True
        return method.task_id()

    def nested(self) -> bool:
        """Whether this code runs inside a task, in a tool say."""
        return self.book.current() is not None or (
            not self.methods.inside() and self.book.newest() is not None
        )

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


def listen(sink: Sink) -> None:
    """Have the sink hear every event of this process, once its place in the run is set.

    CrewAI's stream sinks would hear only what a context that inherited them emits, no thread that a project starts by
    itself, and releases before 1.15.2 have none. A process is one run, so everything in it is the run's.
    """
    bus_class = importlib.import_module("crewai.events.event_bus").CrewAIEventsBus
    emit, aemit = bus_class.emit, getattr(bus_class, "aemit", None)

    def emit_and_tell(self: Any, source: Any, event: Any) -> Any:
        future = emit(self, source, event)
        sink(source, event)
        return future

    async def aemit_and_tell(self: Any, source: Any, event: Any) -> None:
        assert aemit is not None
        await aemit(self, source, event)
        sink(source, event)

    bus_class.emit = emit_and_tell
    if aemit is not None:
        bus_class.aemit = aemit_and_tell


def _crew_kickoff_started(sink: Sink, source: Any, _event: Any) -> Fields | None:
    """A crew of the flow: its tasks are the run's, unless a tool runs it."""
    reviewed = [text(task.name or task.description) for task in source.tasks if task.human_input]
    if reviewed:
        raise Refused("human_input=True is not supported yet; it is set on: " + ", ".join(reviewed))
    if sink.flow is None or sink.nested():
        return None
    method = sink.methods.current()
    if method is not None:
        method.ran_crew = True
    sink.book.add(source.tasks)
    return None


def _method_execution_started(sink: Sink, source: Any, event: Any) -> Fields | None:
    if source is not sink.flow:
        # CrewAI's agent executors are flows, too, and a method may run another flow.
        return None
    sink.methods.start(text(event.method_name))
    return {"method": text(event.method_name)}


def _method_execution_finished(sink: Sink, source: Any, event: Any) -> Fields | None:
    """A method that is no crew, or did work of its own beside it, is a task that is completed."""
    method = sink.methods.end(text(event.method_name)) if source is sink.flow else None
    if method is None or (method.ran_crew and not method.stepped):
        return None
    task_id, seconds, output = method.task_id(), method.seconds(), as_text(event.result)
    sink.abandon_calls(task_id, "the method ended before the tool did")
    sink.book.finish(task_id, None, output, seconds)
    return {
        "type": "task_completed",
        "task_id": task_id,
        "output": output,
        "execution_time": seconds,
        "method": method.name,
    }


def _method_execution_failed(sink: Sink, source: Any, event: Any) -> Fields | None:
    """A method that failed is told unless a task inside it has told the failure."""
    method = sink.methods.end(text(event.method_name)) if source is sink.flow else None
    if method is None or (method.task_failed and not method.stepped):
        return None
    task_id = method.task_id()
    sink.abandon_calls(task_id, "the method failed before the tool ended")
    return {
        "type": "task_failed",
        "task_id": task_id,
        "error": _error(event.error),
        "execution_time": method.seconds(),
        "method": method.name,
    }


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
    sink.book.end(task_id)
    method = sink.methods.current()
    if method is not None:
        method.task_failed = True
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
    "crew_kickoff_started": _crew_kickoff_started,
    "method_execution_started": _method_execution_started,
    "method_execution_finished": _method_execution_finished,
    "method_execution_failed": _method_execution_failed,
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
    return {"task_id": sink.place(uuid), "agent": agent or role_of(getattr(task, "agent", None))}


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
