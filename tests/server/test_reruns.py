"""A run again from one of its tasks, with the crew of examples/reviews, whose middle task asks a person."""

import pytest

from tests.support.receiver import Receiver
from tests.support.server import REPOSITORY, ServerProcess

INPUTS = {"product": "baby monitor", "fault": "battery may overheat"}
TASKS = ["facts_task", "notice_task", "announcement_task"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    data = tmp_path_factory.mktemp("data")
    project = REPOSITORY / "examples" / "reviews"
    with ServerProcess(project, data, "--stub-llm", "--stub-delay", "0") as process:
        process.wait_until_ready()
        yield process


def decide(server, kickoff_id, *, approve=True, feedback=""):
    body = {
        "execution_id": kickoff_id,
        "task_id": "notice_task",
        "human_feedback": feedback,
        "is_approve": approve,
    }
    return server.ask("POST", "/resume", body)


def finished(server, **fields):
    kickoff_id = server.kickoff(INPUTS, **fields)
    server.wait_for(kickoff_id, state="PAUSED")
    assert decide(server, kickoff_id).status == 200
    return kickoff_id, server.wait_for(kickoff_id)


def rerun(server, kickoff_id, **fields):
    return server.ask("POST", f"/api/v1/runs/{kickoff_id}/rerun", fields)


def test_a_decision_right_at_the_pause_is_taken_up_by_a_process_of_its_own(server):
    """The process that paused may still be leaving."""
    for _ in range(8):
        _, status = finished(server)
        assert status["state"] == "SUCCESS"
    assert "ERROR" not in server.text


def test_what_was_finished_is_taken_over_and_not_done_or_told_again(server):
    with Receiver() as receiver:
        first, before = finished(server, **receiver.urls(""))
        answer = rerun(server, first, from_task="announcement_task", inputs={"product": "night light"})
        assert answer.status == 200, answer.body
        again = answer.json
        assert (again["rerun_of"], again["from_task"]) == (first, "announcement_task")
        after = server.wait_for(again["kickoff_id"])
        log = server.events(again["kickoff_id"])
        receiver.wait(
            lambda all_: (
                sum(one.headers["crewcast-kickoff-id"] == again["kickoff_id"] for one in all_) >= len(log)
            )
        )
    assert (after["state"], after["rerun_of"]) == ("SUCCESS", first)
    assert after["progress"] == {"completed_tasks": 3, "total_tasks": 3}
    # Told of: the task that was run. In the result: all of them, the others as they were.
    assert [e["payload"]["task_id"] for e in log if e["type"] == "task.completed"] == ["announcement_task"]
    old, new = before["result"]["tasks"], after["result"]["tasks"]
    assert [task["task_id"] for task in new] == TASKS
    assert new[:2] == old[:2]
    assert "night light" in new[2]["output"]


def test_from_the_task_that_asks_it_asks_again(server):
    first, _ = finished(server)
    again = rerun(server, first, from_task=2).json["kickoff_id"]
    assert server.wait_for(again, state="PAUSED")["awaiting"]["task_id"] == "notice_task"
    assert decide(server, again).status == 200
    assert server.wait_for(again)["state"] == "SUCCESS"


def test_from_the_first_task_it_is_a_kickoff_with_the_same_inputs(server):
    first, _ = finished(server)
    again = rerun(server, first, from_task=1).json["kickoff_id"]
    server.wait_for(again, state="PAUSED")
    tasks = [e["payload"]["task_id"] for e in server.events(again) if e["type"] == "task.completed"]
    assert tasks == ["facts_task"]


def test_a_stopped_run_can_be_gone_on_with_as_a_new_one(server):
    first = server.kickoff(INPUTS)
    server.wait_for(first, state="PAUSED")
    assert server.ask("POST", f"/stop/{first}").json["status"] == "stopped"
    assert server.status(first)["state"] == "REVOKED"
    answer = rerun(server, first)
    assert answer.json["from_task"] == "notice_task"
    server.wait_for(answer.json["kickoff_id"], state="PAUSED")


def test_one_that_has_not_ended_is_refused(server):
    first = server.kickoff(INPUTS)
    server.wait_for(first, state="PAUSED")
    answer = rerun(server, first, from_task=1)
    assert answer.status == 400
    assert "Stop it first" in answer.json["message"]
    assert rerun(server, "no-such-run").status == 404


def test_the_same_key_gives_the_same_run(server):
    first, _ = finished(server)
    path, body = f"/api/v1/runs/{first}/rerun", {"from_task": 3}
    ids = {server.ask("POST", path, body, idempotency_key=f"again-{first}").json["kickoff_id"] for _ in "12"}
    assert len(ids) == 1
    assert server.ask("POST", path, {"from_task": 2}, idempotency_key=f"again-{first}").status == 422
