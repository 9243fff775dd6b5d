"""A run that asks a person is cut after each line that it ever says, and always comes to the same end."""

import os
import signal

import pytest

from tests.crewai.passages import Passages, approve, project, reject
from tests.crewai.releases import since

pytestmark = since("1.15.29", "the executor that a review goes through")

CODE = """
def build():
    # The same reply each time: a call that is cut is made again.
    a, b, c, d = (worker(*[answer("done " + role)] * 9, role=role) for role in "ABCD")
    one, two = task(a, "one", callback=lambda output: note("one")), task(c, "two", human_input=True, callback=lambda output: note("two"))
    skipped = ConditionalTask(name="skipped", description="D", expected_output="E", agent=b, condition=lambda output: False)
    return crew(one, skipped, two, task(d, "three", context=[one, skipped, two]), task(a, "four", async_execution=True))
"""
DECISIONS = [reject("longer"), approve("Mind the bees.")]


class Server(Passages):
    """Takes a run from process to process; each review gets the next decision, and keeps it as long as it is pending."""

    def __init__(self, host, folder):
        super().__init__(host, folder)
        self.decisions = list(DECISIONS)
        self.decision = None
        self.told = []

    def process(self, cut=None):
        """One process; it is killed after this many lines, of which the last is committed and not acknowledged."""
        child = self.host.start(self.folder, journal=self.journal, decision=self.decision)
        lines = 0
        while (line := child.next()) is not None:
            self.commit(line)
            self.told.append(line)
            lines += 1
            if line["op"] == "paused":
                self.decision = self.decisions.pop(0)
            if lines == cut:
                os.kill(child.pid, signal.SIGKILL)
                break
            child.acknowledge(line)
        status = child.status()
        # One that is cut after its last line may be faster.
        assert status in ((0, -signal.SIGKILL) if cut else (0,)), child.log()
        return lines

    def to_the_end(self):
        while self.told[-1]["op"] not in ("finished", "failed"):
            self.process()
        return self.told[-1]

    def completed(self):
        return [
            (line["task_id"], line["output"]) for line in self.told if line.get("type") == "task_completed"
        ]


@pytest.fixture
def server(lab_host, tmp_path):
    def server(name, code):
        (tmp_path / name).mkdir()
        return Server(lab_host, project(tmp_path / name, code))

    yield server
    lab_host.hang_up()


def test_a_run_comes_to_the_same_end_wherever_it_is_cut(server):
    whole = server("whole", CODE)
    lengths = [whole.process()]
    while whole.told[-1]["op"] == "paused":
        lengths.append(whole.process())
    assert len(lengths) == 3
    end = whole.told[-1]
    assert (end["op"], end["output"]) == ("finished", "done A")
    for process, length in enumerate(lengths):
        for cut in range(1, length + 1):
            run = server(f"cut-{process}-{cut}", CODE)
            for _ in range(process):
                run.process()
            run.process(cut)
            last = run.to_the_end()
            where = f"process {process}, line {cut}"
            assert last["op"] == "finished", (where, last)
            assert last["output"] == end["output"], where
            assert [(task["task_id"], task["output"]) for task in last["tasks"]] == [
                (task["task_id"], task["output"]) for task in end["tasks"]
            ], where
            # Told once, and what is told once is done once: both are one transaction.
            assert run.completed() == whole.completed(), where
            # A callback is called before its task is told: it is called again if the cut comes between.
            assert run.effects.count(["one"]) == 1 or process == 0, where
            assert "Mind the bees." in run.prompts("D")[-1], where
            assert "longer" in run.prompts("C")[-1], where
