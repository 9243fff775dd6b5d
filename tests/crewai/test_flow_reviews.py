"""People are asked inside a flow, in another process than the one that worked, and nobody can tell from the result."""

import json
import shutil

import pytest

from tests.crewai.driver import PROJECTS
from tests.crewai.flow_lab import flow_lab
from tests.crewai.passages import Passages, approve, reject
from tests.crewai.passages import HEADER as CREWS
from tests.crewai.releases import since

pytestmark = since("1.15.29", "the executor that a review goes through")
HEADER = (
    CREWS
    + '''
import asyncio, threading
from crewai.flow.flow import Flow, and_, listen, or_, router, start
from crewai.flow.human_feedback import human_feedback
from reviewed import ANSWERS, AtATerminal

plain_crew = crew
def crew(*tasks, **fields):
    """With people at hand, where they are."""
    return ready(plain_crew(*tasks, **fields))

class Typed:
    def request_feedback(self, context, flow):
        return AtATerminal._prompt_input(None)

def feedback(message="Good?", **fields):
    return human_feedback(message=message, provider=Typed() if ANSWERS.exists() else None, **fields)

def one(who, human_input=False, **fields):
    """A crew of one task."""
    return crew(task(worker(answer("done " + who), answer("better " + who), role=who), who.lower(), human_input=human_input),
                **fields)
'''
)


def project(folder, code):
    folder.mkdir()
    found = flow_lab(folder, code, HEADER)
    shutil.copy(PROJECTS / "reviewed.py", folder / "src/reviewed.py")
    return found.job()


class Flows:
    """A flow, run with these decisions in several processes, and with the same people at a terminal."""

    def __init__(self, host, folder):
        self.host, self.folder = host, folder

    def __call__(self, code, *decisions, typed=None, **fields):
        apart = self.apart(code, *decisions, **fields)
        about = project(self.folder / "terminal", "def once(word):\n    pass\n" + code)
        at_once = Passages(self.host, self.folder / "terminal")
        if typed is None:
            typed = [decision["feedback"] for decision in decisions]
        (at_once.folder / "answers.json").write_text(json.dumps(typed))
        at_once.go(about=about, **fields)
        assert json.loads((at_once.folder / "answers.json").read_text()) == []
        ours, theirs = told(apart), told(at_once)
        for part, value in theirs.items():
            assert ours[part] == value, part
        return apart

    def apart(self, code, *decisions, **fields):
        run = self.begin(code, **fields)
        for decision in decisions:
            assert run.last["op"] == "paused", run.last
            run.go(decision, **fields)
        assert run.last["op"] != "paused", run.last
        return run

    def begin(self, code, name="apart", status=0, **fields):
        about = project(self.folder / name, code)
        run = Passages(self.host, self.folder / name)
        go = run.go
        run.go = lambda *arguments, **named: go(*arguments, about=about, **named)
        run.go(status=status, **fields)
        return run


def told(run):
    """What must be the same. A method that is not over begins again in each process."""
    story = run.story()
    story["events"] = [line for line in story["events"] if line["type"] != "method_execution_started"]
    return story


@pytest.fixture
def flow(flow_host, tmp_path):
    yield Flows(flow_host, tmp_path)
    flow_host.hang_up()


def ends(run):
    """What the tasks came to, in the order of the telling."""
    return [(line["task_id"], line["output"]) for line in run.events if line["type"] == "task_completed"]


TWO = """
class F(Flow):
    @start()
    def first(self):
        note("first")
        return one("A").kickoff().raw
    @listen(first)
    def second(self, found):
        reviewed = one("B", human_input=True).kickoff().raw
        return found + " " + reviewed
    @listen(second)
    def third(self, found):
        return found + "!"
"""


def test_a_crew_that_had_returned_is_not_run_again(flow):
    run = flow.apart(TWO, approve())
    assert len(run.calls) == 2
    assert run.effects == [["first"], ["first"]]
    assert ends(run) == [("a", "done A"), ("b", "done B"), ("third", "done A done B!")]
    assert [
        (line["op"], line.get("task_id"), line.get("index"))
        for line in (lines[-1] for lines in run.processes)
    ] == [
        ("paused", "b", 2),
        ("finished", None, None),
    ]
    assert [task["task_id"] for task in run.last["tasks"]] == ["a", "b", "third"]
    assert run.last["output"] == "done A done B!"
    assert "could not be" not in run.child.log()
