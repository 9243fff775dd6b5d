"""Payloads as typed events: the fields are the document's, and nothing that is signed breaks a subscriber."""

import dataclasses
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crewcast.contract import webhooks as wire
from crewcast.contract.asyncapi import payload_schema
from crewcast.webhooks import (
    CrewEvent,
    CrewResult,
    HumanInputEvent,
    Step,
    StepEvent,
    TaskEvent,
    TaskResult,
    UnknownEvent,
)
from crewcast.webhooks.events import event_of

RUN = "01a20bb3-f86a-76d4-9da0-7cc97b4db906"
AT = 1_750_000_000_123_456


def sent(draft: wire.Draft) -> dict:
    """The payload as a subscriber gets it."""
    return json.loads(wire.encode(draft, RUN, 1, 1, 1 << 20).body)


def fields(kind) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


@pytest.mark.parametrize(
    ("kind", "schema"),
    [
        (StepEvent, payload_schema("StepEventPayload")),
        (Step, payload_schema("StepEventPayload")["properties"]["step"]),
        (TaskEvent, payload_schema("TaskCompletedPayload")),
        (CrewEvent, payload_schema("CrewCompletedPayload")),
        (HumanInputEvent, payload_schema("HumanInputPayload")),
        (CrewResult, payload_schema("CrewCompletedPayload")["properties"]["result"]),
        (
            TaskResult,
            payload_schema("CrewCompletedPayload")["properties"]["result"]["properties"]["tasks"]["items"],
        ),
    ],
)
def test_the_fields_are_those_of_the_document(kind, schema):
    assert fields(kind) == set(schema["properties"])
    needed = {field.name for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING}
    assert needed == set(schema.get("required", []))


def test_a_whole_step():
    draft = wire.step(
        RUN, "t", "tool_result", AT, agent="a", content="c", tool="x", input={"n": 1}, output="o"
    )
    assert event_of(sent(draft)) == StepEvent(
        RUN,
        Step("tool_result", "c", "x", {"n": 1}, "o"),
        "t",
        "a",
        datetime(2025, 6, 15, 15, 6, 40, 123456, UTC),
    )


def test_a_whole_task():
    draft = wire.task_completed(
        RUN, "t", "completed", AT, agent="a", output="o", execution_time=1.5, meta={"k": [1]}
    )
    assert event_of(sent(draft)) == TaskEvent(RUN, "t", "completed", "a", "o", 1.5, {"k": [1]})


def test_a_whole_crew():
    tasks = [{"task_id": "t", "agent": "a", "output": "o", "execution_time": 2}, {"task_id": "u"}]
    draft = wire.crew_completed(RUN, "completed", AT, output="O", tasks=tasks, execution_time=3, meta={})
    result = CrewResult("O", (TaskResult("t", "a", "o", 2.0), TaskResult("u")))
    assert event_of(sent(draft)) == CrewEvent(RUN, "completed", result, None, 3.0, {})
    failed = wire.crew_completed(RUN, "error", AT, error="it broke")
    assert event_of(sent(failed)) == CrewEvent(RUN, "error", error="it broke")


def test_a_task_that_waits_for_a_person_and_what_the_person_is_asked():
    paused = wire.task_completed(RUN, "t", "awaiting_human_feedback", AT, output="o")
    assert event_of(sent(paused)) == TaskEvent(RUN, "t", "awaiting_human_feedback", output="o")
    asked = wire.human_input(
        RUN,
        "t",
        "reminder",
        AT,
        output="o",
        agent="a",
        review_url="https://x/r",
        expires_at=AT,
        meta={"k": 1},
    )
    until = datetime(2025, 6, 15, 15, 6, 40, 123456, UTC)
    assert event_of(sent(asked)) == HumanInputEvent(RUN, RUN, "t", "o", "a", "https://x/r", until, {"k": 1})
    bare = wire.human_input(RUN, "t", "requested", AT, output="")
    assert event_of(sent(bare)) == HumanInputEvent(RUN, RUN, "t", "")


def test_what_is_not_required_may_be_absent():
    assert event_of({"kickoff_id": "k", "step": {}}) == StepEvent("k", Step())
    assert event_of({"kickoff_id": "k", "task_id": "t", "status": "error"}) == TaskEvent("k", "t", "error")
    assert event_of({"kickoff_id": "k", "status": "error"}) == CrewEvent("k", "error")


def test_fields_that_come_later_are_left_to_the_payload():
    later = {"kickoff_id": "k", "status": "error", "cost": 7, "result": {"usage": {}}}
    assert event_of(later) == CrewEvent("k", "error", CrewResult())


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"task_id": "t", "task_output": "of no run"},
        {"execution_id": "k", "task_id": "t", "task_output": None},
        {"execution_id": "k", "task_id": "t", "task_output": "o", "expires_at": "soon"},
        {"step": "x"},
        {"step": {"input": "x"}},
        {"step": {}, "timestamp": "soon"},
        {"task_id": 7, "status": "completed"},
        {"task_id": "t", "status": None},
        {"task_id": "t", "status": "completed", "execution_time": True},
        {"status": "completed", "result": {"tasks": ["t"]}},
        {"status": "completed", "result": "as the deployed AMP has it"},
    ],
)
def test_what_is_none_of_these_is_said_to_be_unknown(payload):
    assert event_of({"kickoff_id": "k"} | payload) == UnknownEvent("k")


NAMES = st.sampled_from(
    [
        "step",
        "task_id",
        "status",
        "task_output",
        "execution_id",
        "expires_at",
        "result",
        "tasks",
        "timestamp",
        "input",
        "execution_time",
        "meta",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(NAMES, JSON))
def test_any_payload_is_some_event(payload):
    assert event_of(payload | {"kickoff_id": "k"}).kickoff_id == "k"
