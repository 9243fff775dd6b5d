"""A crew that cannot go on in another process waits for its person in its own, and nothing of it hangs."""

import time

import psutil
import pytest

from tests.support.server import ServerProcess

# It has one task twice, and where such a crew goes on cannot be said.
CREW = """
from crewai import Agent, Crew, Task


def crew():
    writer = Agent(role="Writer", goal="Write", backstory="B")
    first = Task(name="write", description="Write", expected_output="Words", agent=writer, human_input=True)
    second = Task(name="print", description="Print", expected_output="Words", agent=writer)
    return Crew(agents=[writer], tasks=[first, second, second])
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slow")
    (folder / "slow.py").write_text(CREW)
    flags = ("--stub-llm", "--stub-delay", "0", "--stop-grace", "5")
    with ServerProcess(f"{folder}/slow.py:crew", folder / "data", *flags) as process:
        process.wait_until_ready()
        yield process


def decide(server, kickoff_id, *, approve, feedback=""):
    body = {"execution_id": kickoff_id, "task_id": 1, "human_feedback": feedback, "is_approve": approve}
    return server.ask("POST", "/resume", body)


def test_it_says_at_start_that_it_will(server):
    server.wait_until_said("holds a process while it waits for a person")


def test_a_reject_and_an_approval_are_heard_where_it_waits(server):
    kickoff_id = server.kickoff({})
    waits = server.wait_for(kickoff_id, state="PAUSED")
    assert (waits["status"], waits["awaiting"]["task_id"]) == ("awaiting_human_feedback", "write")
    assert decide(server, kickoff_id, approve=False, feedback="Shorter").json["status"] == "retrying"
    end = time.monotonic() + 60
    while (again := server.status(kickoff_id)).get("awaiting", {}).get("review") != 2:
        assert time.monotonic() < end, again
        time.sleep(0.02)
    assert decide(server, kickoff_id, approve=True).json["status"] == "resumed"
    assert server.wait_for(kickoff_id)["state"] == "SUCCESS"
    kinds = [event["type"] for event in server.events(kickoff_id) if event["channel"] != "step"]
    pause = ["task.awaiting_human_feedback", "human_input.requested"]
    assert kinds == [*pause, *pause, *["task.completed"] * 3, "crew.completed"]


def test_its_webhooks_cannot_change_while_it_waits(server):
    kickoff_id = server.kickoff({})
    server.wait_for(kickoff_id, state="PAUSED")
    body = {"execution_id": kickoff_id, "task_id": "write", "human_feedback": "", "is_approve": True}
    answer = server.ask("POST", "/resume", {**body, "taskWebhookUrl": "http://127.0.0.1:9/hook"})
    assert answer.status == 422
    assert server.ask("POST", "/resume", body).status == 200
    assert server.wait_for(kickoff_id)["state"] == "SUCCESS"


def test_it_can_be_stopped_and_its_process_ends(server):
    kickoff_id = server.kickoff({})
    server.wait_for(kickoff_id, state="PAUSED")
    answer = server.ask("POST", f"/stop/{kickoff_id}")
    assert (answer.status, answer.json["status"]) == (202, "stopping")
    assert server.wait_for(kickoff_id)["state"] == "REVOKED"
    assert decide(server, kickoff_id, approve=True).status == 400
    [host] = psutil.Process(server.process.pid).children()
    _, alive = psutil.wait_procs(host.children(), timeout=60)
    assert alive == []


def test_what_is_decided_at_its_deadline_reaches_it(server):
    approved = server.kickoff({}, review={"timeout": 1, "default": "approve"})
    failed = server.kickoff({}, review={"timeout": 1, "default": "fail"})
    assert server.wait_for(approved)["state"] == "SUCCESS"
    ended = server.wait_for(failed)
    assert ended["state"] == "REVOKED"
    assert "the deadline of task write" in ended["error"]
