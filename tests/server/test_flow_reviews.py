"""A flow with people in it, over HTTP: it waits as a row, goes on after kill -9 of the server, and ends once."""

import os
import signal

import pytest

from tests.support.mill import Sack, desk, wait_for_state, wait_until
from tests.support.receiver import Receiver, check_lanes, first_deliveries
from tests.support.server import ServerProcess

FLOW = """
from pathlib import Path

from crewai import Agent, Crew, Task
from crewai.flow.flow import Flow, listen, start
from crewai.flow.human_feedback import human_feedback
from pydantic import BaseModel

from mill.script import MillLLM, note


class State(BaseModel):
    folder: str = ""


def crew(*names, asks=""):
    miller = Agent(role="Miller", goal="Mill", backstory="Terse.", llm=MillLLM(model="mill"))
    tasks = [
        Task(name=name, description="Mill what lies in the folder {folder} .", expected_output="Flour", agent=miller,
             human_input=name == asks)
        for name in names
    ]
    return Crew(agents=[miller], tasks=tasks)


class Mill(Flow[State]):
    @start()
    @human_feedback(message="Is this to be milled?", emit=["approved", "rejected"], llm="openai/gpt-4o-mini")
    def order(self):
        note(Path(self.state.folder) / "effects", task="order")
        return "rye"

    @listen("approved")
    def clean(self, result):
        return result.output + ": " + crew("clean_task").kickoff({"folder": self.state.folder}).raw

    @listen(clean)
    def grind(self, found):
        made = crew("grind_task", "pack_task", asks="grind_task").kickoff({"folder": self.state.folder})
        return found + ", " + made.raw
"""
TASKS = ["order", "clean_task", "grind_task", "pack_task"]


@pytest.fixture
def project(tmp_path):
    root = desk(tmp_path, "", "mill-flow")
    file = root / "pyproject.toml"
    file.write_text(file.read_text().replace('type = "crew"', 'type = "flow"'))
    (root / "src/mill/main.py").write_text(FLOW)
    (root / "src/mill/crew.py").unlink()
    return root


def decide(server, kickoff_id, task, feedback=""):
    body = {"execution_id": kickoff_id, "task_id": task, "human_feedback": feedback, "is_approve": True}
    answer = server.ask("POST", "/resume", body)
    assert answer.status == 200, answer.body


def test_a_flow_waits_for_two_people_and_survives_its_server(project, tmp_path):
    sack = Sack(tmp_path / "sack", pack_task=["wait"])
    with Receiver() as receiver:
        with ServerProcess(project, tmp_path / "data") as server:
            server.wait_until_ready()
            kickoff_id = server.kickoff(sack.inputs, **receiver.urls())
            waiting = wait_for_state(server, kickoff_id, "PAUSED")
            assert (waiting["awaiting"]["task_id"], waiting["awaiting"]["output"]) == ("order", "rye")
            server.kill()
        with ServerProcess(project, tmp_path / "data") as server:
            server.wait_until_ready()
            decide(server, kickoff_id, "order")
            wait_until(lambda: server.status(kickoff_id).get("awaiting", {}).get("task_id") == "grind_task")
            assert sack.counts == {"clean_task": 1, "grind_task": 1}
            decide(server, kickoff_id, "grind_task")
            # The next process is at work on the last task when everything dies.
            sack.wait_for("pack_task")
            os.kill(sack.worker, signal.SIGKILL)
            server.kill()
        sack.go()
        with ServerProcess(project, tmp_path / "data") as server:
            server.wait_until_ready()
            status = server.wait_for(kickoff_id)
            assert status["state"] == "SUCCESS", status
            assert status["result"]["output"] == "rye: clean_task 1, pack_task 2"
            log = server.events(kickoff_id)
            heard = {event["id"] for event in log if event["channel"] in ("task", "step", "crew")}
            got = first_deliveries(receiver.wait(lambda got: {one.event_id for one in got} == heard))
    check_lanes(got)
    # What was judged is not made again, nor what was finished.
    assert sack.callbacks == ["order"]
    assert sack.counts == {"clean_task": 1, "grind_task": 1, "pack_task": 2}
    told = [event["payload"] for event in log if event["channel"] == "task"]
    assert [(each["task_id"], each["status"]) for each in told] == [
        ("order", "awaiting_human_feedback"),
        ("order", "completed"),
        ("clean_task", "completed"),
        ("grind_task", "awaiting_human_feedback"),
        ("grind_task", "completed"),
        ("pack_task", "completed"),
    ]
    [end] = [event["payload"] for event in log if event["channel"] == "crew"]
    assert [task["task_id"] for task in end["result"]["tasks"]] == TASKS
