"""What is told of each of CrewAI's events: one function for each type, which returns the fields of its line.

To send one more type, add a function to `EXTRACTORS`: it copies what is needed (events are live objects).
"""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .flows import asks_at_terminal
from .tasks import role_of
from .tools import Call
from .wire import as_text, text

if TYPE_CHECKING:
    from .events import Sink

Fields = dict[str, Any]

# CrewAI has a model write its plan as the arguments of this function; `agent_reasoning_completed` brings it.
PLAN_FUNCTION = "create_reasoning_plan"


class Refused(BaseException):
    """Ends a run that a server cannot go on with. No Exception: CrewAI would have the agent try again."""

    kind = "refused"


def _crew_kickoff_started(sink: "Sink", source: Any, event: Any) -> Fields | None:
    """A crew of the flow: its tasks are the run's, unless a tool runs it."""
    sink.methods.enter_crew()
    reviewed = [text(task.name or task.description) for task in source.tasks if task.human_input]
    if sink.record is not None:
        sink.record.begun(source, event)
    if reviewed and (sink.record is None or sink.nested() or not sink.record.asks(source)):
        raise Refused("human_input=True is not supported yet; it is set on: " + ", ".join(reviewed))
    if sink.flow is None or sink.nested():
        return None
    method = sink.methods.current()
    if method is not None:
        method.ran_crew = True
    if sink.record is None or not sink.record.gave_ids(source):
        sink.book.add(source.tasks)
    return None


def _crew_kickoff_ended(sink: "Sink", _source: Any, _event: Any) -> None:
    sink.methods.leave_crew()


def _flow_input_requested(_sink: "Sink", source: Any, event: Any) -> None:
    if asks_at_terminal(source):
        raise Refused("self.ask() is not supported yet; it is called in: " + text(event.method_name))


def _human_feedback_requested(_sink: "Sink", _source: Any, event: Any) -> None:
    """Of a flow inside another; the run's own is refused before it begins."""
    # The oldest releases leave the name out.
    where = text(event.method_name or "") or "a flow inside this one"
    raise Refused("@human_feedback is not supported yet; it is set on: " + where)


def _method_execution_started(sink: "Sink", source: Any, event: Any) -> Fields | None:
    if source is not sink.flow:
        # CrewAI's agent executors are flows, too, and a method may run another flow.
        return None
    call = sink.methods.start(text(event.method_name))
    if sink.record is not None:
        sink.record.method_began(call)
    return None if call.told else {"method": call.name}


def _method_execution_finished(sink: "Sink", source: Any, event: Any) -> Fields | None:
    """A method that is no crew, or did work of its own beside it, is a task that is completed."""
    method = sink.methods.end(text(event.method_name)) if source is sink.flow else None
    if method is None or method.told or (method.ran_crew and not method.stepped):
        return None
    task_id, agent, seconds, output = (
        method.task_id(),
        method.agent(),
        method.seconds(),
        as_text(event.result if method.judged is None else method.judged[0]),
    )
    sink.abandon_calls(task_id, "the method ended before the tool did")
    sink.book.finish(task_id, agent, output, seconds)
    return {
        "type": "task_completed",
        "task_id": task_id,
        "agent": agent,
        "output": output,
        "execution_time": seconds,
        "method": method.name,
    }


def _method_execution_failed(sink: "Sink", source: Any, event: Any) -> Fields | None:
    """A method that failed is told unless a task inside it has told the failure."""
    method = sink.methods.end(text(event.method_name)) if source is sink.flow else None
    if method is None or (method.is_told(event.error) and not method.stepped):
        return None
    task_id = method.task_id()
    sink.abandon_calls(task_id, "the method failed before the tool ended")
    sink.book.end(task_id)
    return {
        "type": "task_failed",
        "task_id": task_id,
        "agent": method.agent(),
        "error": _error(event.error),
        "execution_time": method.seconds(),
        "method": method.name,
    }


def _task_started(sink: "Sink", source: Any, event: Any) -> Fields | None:
    task_id = sink.book.known(_uuid(event))
    if task_id is None:
        # A crew inside a tool has tasks of its own, which are nobody's business.
        return None
    agent = role_of(getattr(source, "agent", None))
    if not sink.book.start(task_id, agent) or (sink.record is not None and sink.record.resumes(task_id)):
        return None
    return {"task_id": task_id, "agent": agent}


def _task_completed(sink: "Sink", source: Any, event: Any) -> Fields | None:
    task_id = sink.book.known(_uuid(event))
    if task_id is None or sink.book.is_over(task_id):
        return None
    sink.abandon_calls(task_id, "the task ended before the tool did")
    seconds = sink.book.seconds(task_id)
    agent = text(event.output.agent).strip() or role_of(getattr(source, "agent", None))
    output = text(event.output.raw)
    sink.book.finish(task_id, agent, output, seconds)
    return {"task_id": task_id, "agent": agent, "output": output, "execution_time": seconds}


def _task_failed(sink: "Sink", source: Any, event: Any) -> Fields | None:
    task_id = sink.book.known(_uuid(event))
    if task_id is None or sink.book.is_over(task_id):
        return None
    sink.abandon_calls(task_id, "the task failed before the tool ended")
    sink.book.end(task_id)
    method = sink.methods.current()
    if method is not None:
        method.task_failed(text(event.error))
    return {
        "task_id": task_id,
        "agent": role_of(getattr(source, "agent", None)),
        "error": text(event.error),
        "execution_time": sink.book.seconds(task_id),
    }


def _llm_call_completed(sink: "Sink", source: Any, event: Any) -> Fields | None:
    if not sink.at_work(_agent_of(source, event)):
        return None
    response = event.response
    return {
        **_whose(sink, source, event),
        "response": response if isinstance(response, str) and response else None,
        "call_type": text(getattr(event.call_type, "value", event.call_type)),
    }


def _tool_usage_started(sink: "Sink", source: Any, event: Any) -> Fields | None:
    if event.tool_name == PLAN_FUNCTION or not sink.at_work(_agent_of(source, event)):
        return None
    sink.calls.report(getattr(source, "action", None))
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


def _tool_usage_finished(sink: "Sink", source: Any, event: Any) -> Fields | None:
    call = _ended_call(sink, source, event)
    if call is None:
        return None
    if event.output is None:
        # CrewAI says so of a tool that SystemExit or the like has left, while that passes; a None of its own is "None".
        kind, error, _ = sys.exc_info()
        left = "" if kind is None else " by " + kind.__name__ + ": " + text(error)
        return {
            **result(call),
            "type": "tool_usage_error",
            "args": event.tool_args,
            "error": "the tool was left" + left.rstrip(": "),
        }
    outcome = {"output": text(event.output), "from_cache": bool(event.from_cache)}
    return {**result(call), "args": event.tool_args, **outcome}


def _tool_usage_error(sink: "Sink", source: Any, event: Any) -> Fields | None:
    call = _ended_call(sink, source, event)
    if call is None:
        return None
    return {**result(call), "args": event.tool_args, "error": _error(event.error)}


def _tool_refused(sink: "Sink", source: Any, event: Any) -> Fields | None:
    """A call that never starts: the model named a tool that is not there, or wrote arguments that are none."""
    if not sink.calls.refuse(source):
        return None
    # The event of an unknown tool has no arguments; the action that was parsed has.
    action = getattr(source, "action", None)
    sink.calls.report(action)
    return {
        **_whose(sink, source, event),
        "mode": _mode(source),
        "tool": event.tool_name,
        "args": event.tool_args or getattr(action, "tool_input", None) or {},
        "error": _error(event.error),
    }


def _tool_failure_detected(sink: "Sink", source: Any, event: Any) -> Fields | None:
    """A native call whose arguments are no JSON: CrewAI reports no start of it. (All other failures have their own.)"""
    if getattr(event.failure, "code", None) != "json_decode_error":
        return None
    return {
        **_whose(sink, source, event),
        "mode": "native",
        "tool": event.tool_name,
        "args": event.tool_args,
        "error": text(event.failure.message),
    }


def _agent_logs_execution(sink: "Sink", source: Any, event: Any) -> Fields | None:
    """A ReAct step whose tool CrewAI answered itself, without a word: the same call again, or one that a hook forbids."""
    action = event.formatted_answer
    if not getattr(action, "tool", None) or not sink.calls.report(action):
        return None
    return {
        **_whose(sink, source, event),
        "mode": "react",
        "tool": action.tool,
        "args": action.tool_input,
        "output": text(action.result or ""),
    }


def _agent_reasoning_completed(sink: "Sink", source: Any, event: Any) -> Fields:
    return {**_whose(sink, source, event), "plan": text(event.plan)}


Extractor = Callable[["Sink", Any, Any], Fields | None]
# `tool_execution_error` is absent: CrewAI defines it and emits it nowhere. A tool that raises is a `tool_usage_error`.
EXTRACTORS: dict[str, Extractor] = {
    "crew_kickoff_started": _crew_kickoff_started,
    "crew_kickoff_completed": _crew_kickoff_ended,
    "crew_kickoff_failed": _crew_kickoff_ended,
    "flow_input_requested": _flow_input_requested,
    "human_feedback_requested": _human_feedback_requested,
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
    "tool_failure_detected": _tool_failure_detected,
    "agent_logs_execution": _agent_logs_execution,
    "agent_reasoning_completed": _agent_reasoning_completed,
}
TASK_ENDS = frozenset({"task_completed", "task_failed"})


def _whose(sink: "Sink", source: Any, event: Any) -> dict[str, str | None]:
    """The task and the agent of an event."""
    agent = _agent_of(source, event)
    return {"task_id": sink.place(_uuid(event), agent), "agent": agent}


def _uuid(event: Any) -> Any:
    """Before CrewAI 1.14 the events of a task have the task and no `task_id`."""
    return event.task_id or getattr(getattr(event, "task", None), "id", None)


def _agent_of(source: Any, event: Any) -> str | None:
    """The live agent comes first: some events carry the role as it was written, `{topic}` and all."""
    agent = role_of(getattr(event, "agent", None)) or role_of(getattr(source, "agent", None))
    return agent or text(event.agent_role or "").strip() or None


def _mode(source: Any) -> str:
    return "react" if type(source).__name__ == "ToolUsage" else "native"


def _ended_call(sink: "Sink", source: Any, event: Any) -> Call | None:
    task_id = _whose(sink, source, event)["task_id"]
    return sink.calls.end(event.started_event_id, event.tool_name, task_id)


def result(call: Call) -> Fields:
    return {
        "task_id": call.task_id,
        "agent": call.agent,
        "mode": call.mode,
        "tool": call.tool,
        "started_event_id": call.event_id,
    }


def _error(error: Any) -> str:
    return text(error) or type(error).__name__
