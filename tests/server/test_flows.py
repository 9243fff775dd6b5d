"""A flow served: what it takes, its status while it runs, its three channels, its result."""

import json
import shutil
import time
from pathlib import Path

import pytest

from tests.support.receiver import Receiver, check_lanes, first_deliveries
from tests.support.server import ServerProcess

RELAY = Path(__file__).parents[1] / "projects" / "relay"
FLAGS = ("--stub-llm", "--stub-delay", "0")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return Path(shutil.copytree(RELAY, tmp_path_factory.mktemp("projects") / "relay"))


@pytest.fixture(scope="module")
def server(project, tmp_path_factory):
    with ServerProcess(project, tmp_path_factory.mktemp("data"), *FLAGS) as process:
        process.wait_until_ready()
        yield process


def wait_for_task(server, kickoff_id, name):
    """The status of a run once this is at work."""
    until = time.monotonic() + 60
    while (status := server.status(kickoff_id)).get("current_task") != name:
        assert time.monotonic() < until, status
        time.sleep(0.02)
    return status


@pytest.fixture(scope="module")
def story(server, project):
    """One run: what each moment of it looked like, and what the subscriber got."""
    with Receiver() as receiver:
        asked = {"inputs": {"topic": "bees", "wrods": 5}, "meta": {"requestId": "r-1"}, **receiver.urls()}
        answer = server.ask("POST", "/kickoff", asked)
        assert answer.status == 200, answer.body
        kickoff_id = answer.json["kickoff_id"]
        gathering = wait_for_task(server, kickoff_id, "gather")
        (project / "gathered").touch()
        drafting = wait_for_task(server, kickoff_id, "draft")
        (project / "checked").touch()
        status = server.wait_for(kickoff_id)
        log = server.events(kickoff_id)
        receiver.wait(lambda got: len({one.event_id for one in got}) >= len(log))
        requests = first_deliveries(receiver.requests)
    check_lanes(receiver.requests)
    return {
        "warnings": answer.json["warnings"],
        "gathering": gathering,
        "drafting": drafting,
        "status": status,
        "told": {
            channel: [json.loads(one.body) for one in requests if one.path == f"/{channel}"]
            for channel in ("task", "step", "crew")
        },
    }


def test_the_fields_of_the_state_are_the_inputs(server):
    assert server.ask("GET", "/inputs").json == {"inputs": ["topic", "words"]}
    [crew] = server.ask("GET", "/crews").json["crews"]
    assert (crew["name"], crew["kind"], crew["state"]) == ("relay", "flow", "ready")
    assert (crew["inputs"], crew["required"]) == (["topic", "words"], [])
    assert "tasks" not in crew


def test_an_input_that_is_no_field_is_warned_about(story):
    assert story["warnings"] == ["input 'wrods' is no field of the flow's state; did you mean 'words'?"]


def test_the_status_tells_the_method_or_the_task_at_work(story):
    for status, done in ((story["gathering"], 0), (story["drafting"], 1)):
        assert (status["status"], status["state"]) == ("running", "STARTED")
        # How many there will be, nobody knows.
        assert status["progress"] == {"completed_tasks": done}


def test_the_result_is_the_last_methods(story):
    status = story["status"]
    assert (status["status"], status["state"]) == ("completed", "SUCCESS")
    tasks = {task["task_id"]: task for task in status["result"]["tasks"]}
    assert list(tasks) == ["gather", "draft", "publish"]
    assert status["progress"]["completed_tasks"] == 3
    assert json.loads(tasks["gather"]["output"]) == {"topic": "bees", "words": 100}
    assert json.loads(status["result"]["output"]) == {
        "topic": "bees",
        "titled": True,
        "draft": tasks["draft"]["output"],
    }
    assert tasks["publish"]["output"] == status["result"]["output"]


def test_the_channels_tell_methods_and_tasks(story):
    told = story["told"]
    assert [(each["task_id"], each.get("agent"), each["status"]) for each in told["task"]] == [
        ("gather", None, "completed"),
        ("draft", "Writer", "completed"),
        ("publish", "Editor", "completed"),
    ]
    assert {(each["task_id"], each["agent"]) for each in told["step"]} == {
        ("draft", "Writer"),
        ("publish", "Editor"),
    }
    kinds = [each["step"]["type"] for each in told["step"] if each["task_id"] == "draft"]
    assert kinds.count("tool_call") == kinds.count("tool_result") == 1
    [crew] = told["crew"]
    assert (crew["status"], crew["meta"]) == ("completed", {"requestId": "r-1"})
    assert crew["result"] == story["status"]["result"]


def test_inputs_that_do_not_fit_end_the_run_with_the_reason(server):
    with Receiver() as receiver:
        kickoff_id = server.kickoff({"words": "many"}, crewWebhookUrl=f"{receiver.url}/crew")
        status = server.wait_for(kickoff_id)
        [event] = receiver.wait_for_crew_events()
    error = (
        "an input is invalid: words: Input should be a valid integer, unable to parse string as an integer; "
        "the flow takes: topic, words"
    )
    assert (status["status"], status["error"]) == ("error", error)
    told = json.loads(event.body)
    assert (told["status"], told["error"]) == ("error", error)
    assert "result" not in told
