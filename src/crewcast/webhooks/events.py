"""The events, with the fields of the AsyncAPI document. An optional field that was not sent is None.

    match delivery.event:
        case StepEvent(step=Step(type="tool_call", tool=tool)): ...
        case TaskEvent(status="completed", output=output): ...
        case CrewEvent(status="error", error=error): ...
        case HumanInputEvent(task_output=output, review_url=link): ...

A field that the document gets in time is ignored here; `Delivery.payload` has it.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

JSON = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Step:
    """`type` is thought, action, observation, tool_call or tool_result."""

    type: str | None = None
    content: str | None = None
    tool: str | None = None
    input: JSON | None = None
    output: str | None = None


@dataclass(frozen=True, slots=True)
class StepEvent:
    """What an agent thought or did."""

    kickoff_id: str
    step: Step
    task_id: str | None = None
    agent: str | None = None
    timestamp: datetime | None = None


@dataclass(frozen=True, slots=True)
class TaskEvent:
    """A task has ended, or with the `status` awaiting_human_feedback waits for a person. The other ones are completed
    and error. `execution_time` is in seconds.
    """

    kickoff_id: str
    task_id: str
    status: str
    agent: str | None = None
    output: str | None = None
    execution_time: float | None = None
    meta: JSON | None = None


@dataclass(frozen=True, slots=True)
class TaskResult:
    """A finished task in the result of its crew."""

    task_id: str | None = None
    agent: str | None = None
    output: str | None = None
    execution_time: float | None = None


@dataclass(frozen=True, slots=True)
class CrewResult:
    output: str | None = None
    tasks: tuple[TaskResult, ...] | None = None


@dataclass(frozen=True, slots=True)
class CrewEvent:
    """A run has ended: its last event. `status` is completed or error."""

    kickoff_id: str
    status: str
    result: CrewResult | None = None
    error: str | None = None
    execution_time: float | None = None
    meta: JSON | None = None


@dataclass(frozen=True, slots=True)
class HumanInputEvent:
    """A run waits for a person; `Delivery.type` tells a reminder (`human_input.reminder`) from the first time. Whoever has
    the `review_url` may decide.
    """

    kickoff_id: str
    execution_id: str
    task_id: str
    task_output: str
    agent: str | None = None
    review_url: str | None = None
    expires_at: datetime | None = None
    meta: JSON | None = None


@dataclass(frozen=True, slots=True)
class UnknownEvent:
    """Verified, and of no kind that this version knows: answer 2xx and leave it."""

    kickoff_id: str


Event = StepEvent | TaskEvent | CrewEvent | HumanInputEvent | UnknownEvent


def event_of(payload: JSON) -> Event:
    """The event in a verified payload, which has a `kickoff_id`. What it is, only signed fields say."""
    try:
        if "step" in payload:
            return _step_event(payload)
        if "status" in payload:
            return _task_event(payload) if "task_id" in payload else _crew_event(payload)
        if "task_output" in payload:
            return _human_input_event(payload)
    except _Other:
        pass
    return UnknownEvent(payload["kickoff_id"])


class _Other(Exception):
    """A field is of another type than the document says."""


def _step_event(payload: JSON) -> StepEvent:
    step = _needed(payload, "step", dict)
    return StepEvent(
        kickoff_id=payload["kickoff_id"],
        step=Step(
            type=_field(step, "type", str),
            content=_field(step, "content", str),
            tool=_field(step, "tool", str),
            input=_field(step, "input", dict),
            output=_field(step, "output", str),
        ),
        task_id=_field(payload, "task_id", str),
        agent=_field(payload, "agent", str),
        timestamp=_moment(payload, "timestamp"),
    )


def _task_event(payload: JSON) -> TaskEvent:
    return TaskEvent(
        kickoff_id=payload["kickoff_id"],
        task_id=_needed(payload, "task_id", str),
        status=_needed(payload, "status", str),
        agent=_field(payload, "agent", str),
        output=_field(payload, "output", str),
        execution_time=_seconds(payload),
        meta=_field(payload, "meta", dict),
    )


def _crew_event(payload: JSON) -> CrewEvent:
    result = _field(payload, "result", dict)
    return CrewEvent(
        kickoff_id=payload["kickoff_id"],
        status=_needed(payload, "status", str),
        result=None if result is None else _result(result),
        error=_field(payload, "error", str),
        execution_time=_seconds(payload),
        meta=_field(payload, "meta", dict),
    )


def _human_input_event(payload: JSON) -> HumanInputEvent:
    return HumanInputEvent(
        kickoff_id=payload["kickoff_id"],
        execution_id=_needed(payload, "execution_id", str),
        task_id=_needed(payload, "task_id", str),
        task_output=_needed(payload, "task_output", str),
        agent=_field(payload, "agent", str),
        review_url=_field(payload, "review_url", str),
        expires_at=_moment(payload, "expires_at"),
        meta=_field(payload, "meta", dict),
    )


def _result(result: JSON) -> CrewResult:
    tasks = _field(result, "tasks", list)
    return CrewResult(
        output=_field(result, "output", str),
        tasks=None if tasks is None else tuple(_task_result(task) for task in tasks),
    )


def _task_result(task: Any) -> TaskResult:
    if not isinstance(task, dict):
        raise _Other
    return TaskResult(
        task_id=_field(task, "task_id", str),
        agent=_field(task, "agent", str),
        output=_field(task, "output", str),
        execution_time=_seconds(task),
    )


def _field(holder: JSON, name: str, kind: type[T]) -> T | None:
    value = holder.get(name)
    if value is None:
        return None
    if not isinstance(value, kind):
        raise _Other
    return value


def _needed(holder: JSON, name: str, kind: type[T]) -> T:
    value = _field(holder, name, kind)
    if value is None:
        raise _Other
    return value


def _moment(holder: JSON, name: str) -> datetime | None:
    text = _field(holder, name, str)
    try:
        return None if text is None else datetime.fromisoformat(text)
    except ValueError as e:
        raise _Other from e


def _seconds(holder: JSON) -> float | None:
    value = holder.get("execution_time")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Other
    return float(value)
