"""Wire forms against the document: whatever is built validates, also when it had to be cut."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker

from crewcast.contract import webhooks
from crewcast.contract.asyncapi import DELIVERY_HEADERS, payload_schema
from crewcast.core.event import Channel, Event
from crewcast.core.lane import Lane

KICKOFF = "01980000-0000-7000-8000-000000000001"
NOW = 1_750_000_000_123_456
SCHEMAS = {
    Channel.TASK: "TaskCompletedPayload",
    Channel.STEP: "StepEventPayload",
    Channel.CREW: "CrewCompletedPayload",
    Channel.HUMAN_INPUT: "HumanInputPayload",
}

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
maybe_texts = st.none() | texts
times = st.none() | st.floats(0, 1e6, allow_nan=False)
objects = st.dictionaries(
    texts, st.none() | texts | st.integers(-(2**53), 2**53) | st.lists(texts, max_size=3), max_size=4
)


def validate(draft: webhooks.Draft, max_bytes: int = 1 << 20) -> dict:
    event = webhooks.encode(draft, KICKOFF, 7, 1, max_bytes)
    payload = json.loads(event.body)
    schema = payload_schema(SCHEMAS[draft.channel])
    Draft202012Validator(schema, format_checker=FormatChecker()).validate(payload)
    assert set(payload) <= set(schema["properties"])
    assert None not in payload.values()
    return payload


@given(
    texts,
    st.sampled_from(["completed", "error", "awaiting_human_feedback"]),
    maybe_texts,
    maybe_texts,
    times,
    objects,
)
def test_task_payloads_validate(task_id, status, agent, output, seconds, meta):
    draft = webhooks.task_completed(
        KICKOFF, task_id, status, NOW, agent=agent, output=output, execution_time=seconds, meta=meta
    )
    payload = validate(draft)
    assert draft.type == f"task.{status}"
    assert payload.get("output") == output
    assert payload["meta"] == meta


@given(
    maybe_texts,
    st.sampled_from(["thought", "action", "observation", "tool_call", "tool_result"]),
    maybe_texts,
    maybe_texts,
    st.none() | objects,
)
def test_step_payloads_validate_and_have_no_meta(task_id, kind, content, tool, arguments):
    draft = webhooks.step(KICKOFF, task_id, kind, NOW, content=content, tool=tool, input=arguments)
    payload = validate(draft)
    assert "meta" not in payload
    assert set(payload["step"]) <= set(payload_schema("StepEventPayload")["properties"]["step"]["properties"])
    assert payload["timestamp"] == "2025-06-15T15:06:40.123456Z"


@given(st.sampled_from(["completed", "error"]), maybe_texts, maybe_texts, times, st.none() | objects)
def test_crew_payloads_validate(status, output, error, seconds, meta):
    tasks = [{"task_id": "a", "agent": "A", "output": "x", "execution_time": 0.5}]
    draft = webhooks.crew_completed(
        KICKOFF, status, NOW, output=output, tasks=tasks, error=error, execution_time=seconds, meta=meta
    )
    payload = validate(draft)
    assert payload["result"]["tasks"] == tasks


@given(
    texts,
    st.sampled_from(["requested", "reminder"]),
    texts,
    maybe_texts,
    st.none() | st.integers(0, NOW),
    st.none() | objects,
)
def test_questions_to_a_person_validate(task_id, kind, output, agent, expires_at, meta):
    draft = webhooks.human_input(
        KICKOFF,
        task_id,
        kind,
        NOW,
        output=output,
        agent=agent,
        review_url="https://crews.example.com/reviews/x",
        expires_at=expires_at,
        meta=meta,
    )
    payload = validate(draft)
    assert draft.type == f"human_input.{kind}"
    assert (payload["kickoff_id"], payload["execution_id"]) == (KICKOFF, KICKOFF)
    assert ("expires_at" in payload) == (expires_at is not None)
    shown = json.loads(webhooks.without_link(webhooks.encode(draft, KICKOFF, 7, 1, 1 << 20).body))
    assert shown == {name: value for name, value in payload.items() if name != "review_url"}


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=4000), min_size=1, max_size=5),
    st.integers(1500, 6000),
)
def test_a_large_event_is_cut_to_size_and_kept_whole(outputs, limit):
    tasks = [{"task_id": f"t{n}", "output": text} for n, text in enumerate(outputs)]
    draft = webhooks.crew_completed(
        KICKOFF, "completed", NOW, output=outputs[-1], tasks=tasks, meta={"k": "v" * 50}
    )
    event = webhooks.encode(draft, KICKOFF, 7, 1, limit)
    payload = validate(draft, limit)
    if event.whole is None:
        assert payload["result"]["output"] == outputs[-1]
        return
    assert json.loads(event.whole) == draft.payload
    assert len(event.body) <= limit
    assert payload["meta"] == {"k": "v" * 50}
    assert "[cut by Crewcast:" in event.body.decode()


def test_the_marker_says_how_much_there_was_and_where_it_is():
    draft = webhooks.step(
        KICKOFF, "t", "tool_result", NOW, tool="read", input={"path": "x"}, output="ab\n" * 5000
    )
    payload = validate(draft, 4096)
    output = payload["step"]["output"]
    assert output.startswith("ab\nab\n")
    assert output.endswith(
        f"...[cut by Crewcast: 15000 characters in all; whole: GET /api/v1/runs/{KICKOFF}/events/7]"
    )
    assert payload["step"]["input"] == {"path": "x"}


def test_texts_inside_a_tool_input_are_cut_too():
    draft = webhooks.step(
        KICKOFF, "t", "tool_call", NOW, tool="write", input={"text": "x" * 9000, "n": [1, "y"]}
    )
    payload = validate(draft, 4096)
    assert payload["step"]["input"]["n"] == [1, "y"]
    assert "[cut by Crewcast" in payload["step"]["input"]["text"]


def test_short_texts_stay_whole_while_long_ones_are_cut():
    tasks = [{"task_id": "short", "output": "fine"}, {"task_id": "long", "output": "x" * 50_000}]
    payload = validate(
        webhooks.crew_completed(KICKOFF, "completed", NOW, output="short too", tasks=tasks), 8192
    )
    assert payload["result"]["tasks"][0]["output"] == "fine"
    assert payload["result"]["output"] == "short too"


def delivery_headers(**fields) -> dict[str, str]:
    event = Event(KICKOFF, 12, Channel.CREW, "crew.completed", b"{}", NOW, run_attempt=2)
    lane = Lane(KICKOFF, 1, "https://a.example/", "https://a.example", Channel.CREW, settled=4, tries=2)
    listed = webhooks.headers(event, lane, timestamp=1_750_000_000, signatures="v1,x", **fields)
    return {name.decode(): value.decode() for name, value in listed}


def test_every_header_is_the_documents():
    found = delivery_headers(pending=3, replay=True)
    assert set(found) - {"content-type"} == set(DELIVERY_HEADERS)
    assert found["webhook-id"] == "evt_01980000000070008000000000000001_12"
    assert found["crewcast-run-seq"] == "12"
    assert found["crewcast-lane-seq"] == "5"
    assert found["crewcast-run-attempt"] == "2"
    assert found["crewcast-delivery-attempt"] == "3"
    assert found["crewcast-pending"] == "3"
    assert found["crewcast-replay"] == "true"


def test_traceparent_is_well_formed_and_the_run_is_the_trace():
    found = delivery_headers()
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", found["traceparent"])
    assert found["traceparent"].split("-")[1] == KICKOFF.replace("-", "")
    assert "crewcast-pending" not in found
    assert "crewcast-replay" not in found


@pytest.mark.parametrize(
    ("at", "text"), [(0, "1970-01-01T00:00:00.000000Z"), (1, "1970-01-01T00:00:00.000001Z")]
)
def test_times_are_rfc_3339(at, text):
    assert webhooks.rfc3339(at) == text
