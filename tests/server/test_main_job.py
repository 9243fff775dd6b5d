"""A real crew over the AMP API: every event on its channel, in order, signed and valid."""

import subprocess
import sys
from collections import Counter

import pytest
from standardwebhooks.webhooks import Webhook

from crewcast.core.url import parse
from tests.support.receiver import check_lanes, check_payload, first_deliveries
from tests.support.server import TOKEN

INPUTS = {"topic": "green tea", "audience": "cafe owners"}
TASKS = ["research_task", "sizing_task", "brief_task"]


def secret_of(server, url: str) -> str:
    command = [
        sys.executable,
        "-m",
        "crewcast",
        "secret",
        "show",
        "--data-dir",
        str(server.data),
        "--origin",
        url,
    ]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def story(server):
    """One run, whole: its status, its log, and what the subscriber got."""
    from tests.support.receiver import Receiver

    with Receiver() as receiver:
        kickoff_id = server.kickoff(INPUTS, meta={"requestId": "r-1"}, **receiver.urls())
        status = server.wait_for(kickoff_id)
        log = server.events(kickoff_id)
        receiver.wait(lambda got: len({one.event_id for one in got}) >= len(log))
        server.wait_until_delivered(kickoff_id)
        secret = secret_of(server, receiver.url)
        deliveries = [(one, check_payload(one, secret)) for one in first_deliveries(receiver.requests)]
        yield {"id": kickoff_id, "status": status, "log": log, "requests": receiver.requests,
               "deliveries": deliveries, "secret": secret, "origin": parse(receiver.url).origin}  # fmt: skip


def payloads(story, channel: str) -> list[dict]:
    return [delivery.payload for request, delivery in story["deliveries"] if request.path == f"/{channel}"]


def test_the_run_completes_with_its_result(story):
    status = story["status"]
    assert (status["status"], status["state"]) == ("completed", "SUCCESS")
    assert [task["task_id"] for task in status["result"]["tasks"]] == TASKS
    assert "green tea" in status["result"]["output"]
    assert status["progress"] == {"completed_tasks": 3, "total_tasks": 3}


def test_there_is_one_task_event_for_each_task_in_order(story):
    events = payloads(story, "task")
    assert [event["task_id"] for event in events] == TASKS
    for event in events:
        assert event["status"] == "completed"
        assert event["kickoff_id"] == story["id"]
        assert event["meta"] == {"requestId": "r-1"}
        assert event["agent"].startswith("green tea Market") or event["agent"] == "green tea Brief Writer"
        assert 0 < event["execution_time"] < 60
        assert event["output"]


def test_steps_tell_each_task_and_have_no_meta(story):
    events = payloads(story, "step")
    assert {event["task_id"] for event in events} == set(TASKS)
    kinds = Counter((event["task_id"], event["step"]["type"]) for event in events)
    for task in TASKS:
        assert kinds[task, "thought"] >= 1
    assert all("meta" not in event for event in events)
    # One agent calls its tool in ReAct's words, one natively, one has none.
    by_task = {task: {kind for (of, kind), _ in kinds.items() if of == task} for task in TASKS}
    words = {"action", "observation"}
    with_words = [task for task in TASKS if words <= by_task[task]]
    calling = [task for task in TASKS if {"tool_call", "tool_result"} <= by_task[task]]
    assert len(with_words) == 1
    assert len(calling) == 2
    assert "tool_call" not in by_task["brief_task"]


def test_every_tool_call_has_its_result_and_an_object_as_input(story):
    steps = [event["step"] | {"task": event["task_id"]} for event in payloads(story, "step")]
    calls = [(step["task"], step["tool"], step["input"]) for step in steps if step["type"] == "tool_call"]
    results = [(step["task"], step["tool"], step["input"]) for step in steps if step["type"] == "tool_result"]
    assert calls == results != []
    assert all(isinstance(arguments, dict) for _, _, arguments in calls)


def test_there_is_exactly_one_crew_event_and_it_is_last(story):
    [event] = payloads(story, "crew")
    assert event["status"] == "completed"
    assert event["result"] == story["status"]["result"]
    assert event["meta"] == {"requestId": "r-1"}
    assert event["execution_time"] > 0
    assert story["requests"][-1].path == "/crew"
    assert story["log"][-1]["type"] == "crew.completed"


def test_the_log_is_dense_and_what_was_delivered(story):
    assert [event["seq"] for event in story["log"]] == list(range(1, len(story["log"]) + 1))
    sent = {delivery.id: delivery.payload for _, delivery in story["deliveries"]}
    assert sent == {event["id"]: event["payload"] for event in story["log"]}
    check_lanes(story["requests"])


def test_headers_say_what_the_document_says(story):
    for request, delivery in story["deliveries"]:
        assert request.headers["content-type"] == "application/json"
        assert delivery.kickoff_id == story["id"] == request.headers["crewcast-kickoff-id"]
        assert (delivery.run_attempt, delivery.delivery_attempt) == (1, 1)
        assert ("crewcast-pending" in request.headers) == (request.path == "/crew")
    assert story["requests"][-1].headers["crewcast-pending"] == "0"


def test_the_reference_library_verifies_every_delivery(story):
    webhook = Webhook(story["secret"])
    for request, _ in story["deliveries"]:
        webhook.verify(request.body, request.headers)


def test_another_origin_has_another_secret(server, story):
    assert secret_of(server, "https://hooks.example.com/x?y") != story["secret"]


def test_attempts_are_recorded_with_their_outcome(server, story):
    told = server.ask("GET", f"/api/v1/runs/{story['id']}/deliveries").json
    assert len(told["attempts"]) == len(story["log"])
    assert {(one["outcome"], one["status"], one["verdict"]) for one in told["attempts"]} == {
        ("ok", 204, "accepted")
    }
    assert [lane["channels"] for lane in told["lanes"]] == [["task"], ["step"], ["crew"]]
    assert not any(lane["pending"] for lane in told["lanes"])
    assert told["dead_letters"] == []


def test_what_the_crew_printed_is_kept(server, story):
    printed = server.ask("GET", f"/api/v1/runs/{story['id']}/logs")
    assert "brief_task" in printed.body.decode()
    command = [sys.executable, "-m", "crewcast", "logs", story["id"], "--url", server.url, "--token", TOKEN]
    assert subprocess.run(command, check=True, capture_output=True).stdout == printed.body


def test_no_payload_and_no_secret_reaches_the_servers_log(server, story):
    log = server.text
    assert story["secret"] not in log
    assert "green tea Market" not in log
