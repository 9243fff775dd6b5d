"""A run that somebody stops: what is answered, what is told, and that nothing of it goes on."""

import os
import time

import pytest

from tests.support.mill import MILL, Sack, desk, wait_for_state, wait_until
from tests.support.receiver import Receiver, check_lanes, first_deliveries
from tests.support.server import ServerProcess

GRACE = 1.0
AFTER_TERM = 2.0  # seconds between SIGTERM and SIGKILL


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Longer than all that is waited for here, a run may take to stop by itself."""
    folder = tmp_path_factory.mktemp("stops")
    crews = [MILL, desk(folder)]
    with ServerProcess(crews, folder / "data", "--stop-grace", "600", "--max-runs", "3") as process:
        for name in ("mill", "desk"):
            assert process.ask("GET", f"/crews/{name}/inputs", timeout=60).status == 200
        yield process


@pytest.fixture(scope="module")
def impatient(tmp_path_factory):
    """It waits `GRACE` for that."""
    data = tmp_path_factory.mktemp("data")
    with ServerProcess(MILL, data, "--stop-grace", str(GRACE)) as process:
        assert process.ask("GET", "/crews/mill/inputs", timeout=60).status == 200
        yield process


@pytest.fixture
def sack(tmp_path):
    return lambda name="sack", **script: Sack(tmp_path / name, **script)


def start(server, sack, crew="mill", **fields):
    return server.kickoff(sack.inputs, at=f"/crews/{crew}", **fields)


def stop(server, kickoff_id, by="Ada"):
    return server.ask("POST", f"/stop/{kickoff_id}", crewcast_actor=by)


def crew_events(server, kickoff_id):
    return [event for event in server.events(kickoff_id) if event["channel"] == "crew"]


def assert_stopped(server, kickoff_id, finished, by="Ada"):
    """One crew event, the status of a run that was stopped, and an answer that says so."""
    status = server.status(kickoff_id)
    assert (status["state"], status["error"]) == ("REVOKED", f"stopped by {by}")
    [event] = crew_events(server, kickoff_id)
    payload = event["payload"]
    assert (event["type"], payload["error"]) == ("crew.error", f"stopped by {by}")
    assert [task["task_id"] for task in payload.get("result", {}).get("tasks", [])] == finished
    assert server.events(kickoff_id)[-1] == event
    again = stop(server, kickoff_id, "Bob")
    assert (again.status, again.json["status"]) == (200, "stopped")
    assert server.status(kickoff_id)["error"] == f"stopped by {by}"


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_queued_run_stops_at_once_and_never_starts(server, sack):
    holding = [sack(f"holding{n}", clean_task=["wait"]) for n in range(3)]
    running = [start(server, one) for one in holding]
    for one in holding:
        one.wait_for("clean_task")
    queued = sack("queued")
    with Receiver() as receiver:
        kickoff_id = start(server, queued, **receiver.urls())
        answer = stop(server, kickoff_id)
        assert (answer.status, answer.json["status"]) == (200, "stopped")
        assert_stopped(server, kickoff_id, [])
        [crew] = receiver.wait_for_crew_events()
        assert b'"error":"stopped by Ada"' in crew.body
    for one, run in zip(holding, running, strict=True):
        one.go()
        assert server.wait_for(run)["state"] == "SUCCESS"
    assert queued.calls == []


def test_a_running_run_stops_at_its_next_event_and_calls_no_model_again(server, sack):
    one = sack(grind_task=["wait"])
    with Receiver() as receiver:
        kickoff_id = start(server, one, **receiver.urls())
        one.wait_for("grind_task")
        answer = stop(server, kickoff_id)
        assert (answer.status, answer.json["status"]) == (202, "stopping")
        server.wait_until_said(f"run {kickoff_id} is to stop")
        assert server.status(kickoff_id)["state"] == "STARTED"
        again = stop(server, kickoff_id, "Bob")
        assert (again.status, again.json["status"]) == (202, "stopping")
        one.go()
        wait_for_state(server, kickoff_id, "REVOKED")
        assert_stopped(server, kickoff_id, ["clean_task"])
        assert one.counts == {"clean_task": 1, "grind_task": 1}
        log = server.events(kickoff_id)
        got = receiver.wait(lambda got: len({one.event_id for one in got}) == len(log))
        check_lanes(first_deliveries(got))


def test_a_tool_that_takes_its_time_is_ended_after_the_grace(impatient, sack):
    """By SIGTERM: of one that is gone before a SIGKILL can have come that is sure, and a busy machine is late with some."""
    took = GRACE + AFTER_TERM
    for n in range(5):
        if took < GRACE + AFTER_TERM:
            break
        one = sack(f"sack{n}")
        one.follow(clean_task=[one.weigh(600)])
        kickoff_id = start(impatient, one)
        wait_until(lambda one=one: one.noted("effects"))
        began = time.monotonic()
        assert stop(impatient, kickoff_id).status == 202
        wait_for_state(impatient, kickoff_id, "REVOKED")
        took = time.monotonic() - began
        assert took >= GRACE
        assert_stopped(impatient, kickoff_id, [])
        assert not alive(one.worker)
        assert one.counts == {"clean_task": 1}
        assert [effect for effect in one.noted("effects") if "ended" in effect] == []
    assert took < GRACE + AFTER_TERM


def test_what_does_not_hear_sigterm_is_killed(impatient, sack):
    one = sack(clean_task=["deaf"])
    kickoff_id = start(impatient, one)
    one.wait_for("clean_task")
    began = time.monotonic()
    assert stop(impatient, kickoff_id).status == 202
    wait_for_state(impatient, kickoff_id, "REVOKED")
    assert time.monotonic() - began >= GRACE + AFTER_TERM
    assert_stopped(impatient, kickoff_id, [])
    assert not alive(one.worker)


def test_a_waiting_run_stops_at_once_and_its_review_is_void(server, sack):
    one = sack()
    kickoff_id = start(server, one, "desk")
    wait_for_state(server, kickoff_id, "PAUSED")
    answer = stop(server, kickoff_id)
    assert (answer.status, answer.json["status"]) == (200, "stopped")
    assert_stopped(server, kickoff_id, ["clean_task"])
    listed = server.ask("GET", f"/api/v1/reviews?state=all&kickoff_id={kickoff_id}").json["reviews"]
    assert [(review["state"], review["decided_by"]) for review in listed] == [("void", "Ada")]
    assert "review_url" not in listed[0]
    late = server.ask(
        "POST",
        "/resume",
        {"execution_id": kickoff_id, "task_id": "grind_task", "human_feedback": "", "is_approve": True},
    )
    assert late.status == 400
    assert "cancelled" in late.json["message"]
    assert one.counts == {"clean_task": 1, "grind_task": 1}


def test_a_run_that_pauses_while_somebody_stops_it_ends(server, sack):
    """Whichever comes first: it never waits for a person."""
    one = sack(grind_task=["wait"])
    kickoff_id = start(server, one, "desk")
    one.wait_for("grind_task")
    one.go()
    stop(server, kickoff_id)
    wait_for_state(server, kickoff_id, "REVOKED")
    assert_stopped(server, kickoff_id, ["clean_task"])
    assert server.ask("GET", f"/api/v1/reviews?kickoff_id={kickoff_id}").json["reviews"] == []


def test_a_run_that_ended_cannot_be_stopped(server, sack):
    for script, word in (({}, "SUCCESS"), ({"clean_task": ["exit"]}, "FAILURE")):
        kickoff_id = start(server, sack(word, **script), max_attempts=1)
        server.wait_for(kickoff_id)
        events = server.events(kickoff_id)
        answer = stop(server, kickoff_id)
        assert answer.status == 400
        assert answer.json["message"] == f"Cannot stop execution. Current state: {word}"
        assert server.events(kickoff_id) == events


def test_a_run_that_is_not_there_cannot_be_stopped(server):
    assert stop(server, "01a20fca-0000-7000-8000-000000000000").status == 404
    assert stop(server, "nonsense").status == 404
    assert server.ask("POST", "/stop/nonsense", authorization=None).status == 401


def test_a_child_that_dies_while_it_is_stopped_is_not_tried_again(server, sack):
    one = sack(clean_task=["wait"])
    kickoff_id = start(server, one, max_attempts=5)
    one.wait_for("clean_task")
    assert stop(server, kickoff_id).status == 202
    os.kill(one.worker, 9)
    wait_for_state(server, kickoff_id, "REVOKED")
    assert_stopped(server, kickoff_id, [])
    assert one.counts == {"clean_task": 1}


def test_a_server_that_ends_while_a_run_is_stopped_stops_it(tmp_path, sack):
    """Killed, or with no time left to wait for it: a run that somebody stopped is not begun again."""
    killed, drained = sack("killed", clean_task=["deaf", "deaf"]), sack("drained", clean_task=["deaf"])
    with ServerProcess(MILL, tmp_path / "data", "--stop-grace", "60", "--drain", "0.2") as server:
        first = start(server, drained)
        drained.wait_for("clean_task", within=60)
        assert stop(server, first).status == 202
        second = start(server, killed)
        killed.wait_for("clean_task")
        assert server.terminate() == 0
    with ServerProcess(MILL, tmp_path / "data", "--stop-grace", "60") as server:
        assert_stopped(server, first, [])
        killed.wait_for("clean_task", 2, within=60)
        assert stop(server, second).status == 202
        server.kill()
    with ServerProcess(MILL, tmp_path / "data") as server:
        assert_stopped(server, second, [])
    assert drained.counts == {"clean_task": 1}
    assert killed.counts == {"clean_task": 2}
