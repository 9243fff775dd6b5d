"""What ends a run early: the server's word, its silence, and a budget that is spent."""

import fcntl
import importlib
import os
import select
import signal
import struct
import termios
import time
from pathlib import Path

import pytest

from crewcast.crew.child.birth import LEAVE_SECONDS
from tests.crewai.driver import PATIENCE
from tests.crewai.passages import Passages, approve, project, reject
from tests.crewai.releases import has, since

ORPHANED = 75


@pytest.fixture
def passages(lab_host, tmp_path):
    yield lambda code, **fields: Passages(lab_host, project(tmp_path, code), **fields)
    lab_host.hang_up()


@pytest.fixture
def stop(passages):
    """What a run says that is told to stop while it waits in a call of `hold()`, and what it did."""

    def stop(code, **fields):
        run = passages(HOLD + code, **fields)
        child = run.host.start(run.folder, journal=run.journal)
        until(lambda: (run.folder / "held").exists() or (readable(child) and child.acknowledge(child.next())))
        child.send({"op": "stop", "reason": "because of Kim"})
        begin = time.monotonic()
        run.last = child.rest()[-1]
        run.seconds = time.monotonic() - begin
        assert child.status() == 0, child.log()
        return run

    return stop


# Held until the child has heard that it is to stop, or until the file is there.
HOLD = """
import gc
def control_of_this():
    return next(each for each in gc.get_objects() if type(each).__name__ == "Control")
def hold():
    control = control_of_this()
    open("held", "w").close()
    while control._stop is None and not os.path.exists("go"):
        time.sleep(0.01)
    note("held")
"""


def until(met):
    deadline = time.monotonic() + PATIENCE
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def readable(child):
    return bool(child.lines.buffer or select.select([child.channel], [], [], 0)[0])


def unread(child):
    """How much of what was sent the child has not read."""
    return struct.unpack("i", fcntl.ioctl(child.channel, termios.TIOCOUTQ, b"\0" * 4))[0]


PLACES = {
    "in a call of a model": """
def build():
    a, b = worker(lambda: hold() or answer("a"), role="A"), worker(answer("b"), role="B")
    return crew(task(a, "a"), task(b, "b"))
""",
    "in a tool": """
@tool("Hold")
def slow() -> str:
    "Hold."
    hold()
    return "x"
def build():
    return crew(task(worker(use("Hold"), answer("a"), role="A", tools=[slow]), "a"), task(worker(answer("b"), role="B"), "b"))
""",
    "in one of two native tools": """
@tool("Hold")
def slow(n: int) -> str:
    "Hold."
    hold() if n else None
    return "x"
def build():
    calls = [call("hold", "one", n=0), call("hold", "two", n=1)]
    return crew(task(worker(calls, "a", role="A", tools=[slow], native=True), "a"), task(worker(answer("b"), role="B"), "b"))
""",
    "in an agent with a time limit": """
def build():
    return crew(task(worker(lambda: hold() or answer("a"), role="A", max_execution_time=60), "a"), task(worker(answer("b"), role="B"), "b"))
""",
    "in an async task": """
def build():
    a = worker(lambda: hold() or answer("a"), role="A")
    return crew(task(a, "a", async_execution=True), task(worker(answer("b"), role="B"), "b"))
""",
    "in a callback": """
def build():
    return crew(task(worker(answer("a"), role="A"), "a", callback=lambda output: hold()), task(worker(answer("b"), role="B"), "b"))
""",
    "in a guardrail": """
def check(output):
    hold()
    return False, "no"
def build():
    return crew(task(worker(answer("a"), answer("a"), role="A"), "a", guardrail=check), task(worker(answer("b"), role="B"), "b"))
""",
    "where the project catches everything": """
def build():
    def swallow():
        hold()
        for _ in range(3):
            try:
                Agent(role="X", goal="g", backstory="b", llm=llm("X", answer("x"))).kickoff("x")
            except BaseException as error:
                note("caught", type(error).__name__)
        return answer("a")
    return crew(task(worker(swallow, role="A"), "a"), task(worker(answer("b"), role="B"), "b"))
""",
}


@pytest.mark.parametrize("place", PLACES)
def test_a_run_stops_at_its_next_event(stop, place):
    run = stop(PLACES[place])
    assert (run.last["op"], run.last["kind"], run.last["error"]) == ("failed", "stopped", "because of Kim")
    assert run.last["tasks"] == []
    assert [call["llm"] for call in run.calls] == ["A"]
    assert ["held"] in run.effects
    # Nothing is waited for until some time is over.
    assert run.seconds < LEAVE_SECONDS


def test_what_was_finished_is_told_by_a_run_that_stops(stop):
    run = stop("""
def build():
    a, b = worker(answer("a"), role="A"), worker(lambda: hold() or answer("b"), role="B")
    return crew(task(a, "a"), task(b, "b"))
""")
    assert [(task["task_id"], task["output"]) for task in run.last["tasks"]] == [("a", "a")]
    assert run.last["kind"] == "stopped"


def test_a_stop_that_comes_before_the_first_task_is_heard(passages):
    run = passages(HOLD + "def build():\n    hold()\n    return crew(task(worker(answer('a')), 'a'))")
    child = run.host.start(run.folder, journal={})
    until((run.folder / "held").exists)
    child.send({"op": "stop", "reason": "at once"})
    lines = child.result()
    assert (lines[-1]["kind"], lines[-1]["error"]) == ("stopped", "at once")
    assert run.calls == []


def test_a_flow_stops_too(start_flow, tmp_path):
    child = start_flow(
        "def note(what):\n    pass\n"
        + HOLD
        + """
class Lab(Flow):
    @start()
    def one(self):
        hold()
        return say("x").kickoff().raw
"""
    )
    until((tmp_path / "held").exists)
    child.send({"op": "stop", "reason": "because"})
    assert child.result()[-1]["kind"] == "stopped"


# The server's silence


# As long as a start may take, wherever that is.
LONG = 600
# From here on the server is to say something every second, whatever the start took.
EVERY_SECOND = """
def build():
    return crew(task(worker(lambda: every_second() or hold() or answer("a")), "a"))
def every_second():
    control, clock = control_of_this(), sys.modules[type(control_of_this()).__module__].CLOCK
    control._patience, control._heard = 1, time.clock_gettime(clock)
"""
# Two thirds of its patience pass three times, and each time a beat is waited for.
BEATEN = """
def build():
    return crew(task(worker(lambda: beaten() or answer("a")), "a"))
def beaten():
    control = control_of_this()
    for n in range(3):
        control._heard -= control._patience * 2 / 3
        before = control._heard
        open(f"beat-{n}", "w").close()
        while control._heard == before:
            time.sleep(0.01)
"""


def patient(passages, code):
    run = passages("import sys\n" + HOLD + code)
    return run, run.host.start(run.folder, journal={}, patience=LONG)


def test_a_child_whose_server_is_silent_ends_without_a_word(passages):
    run, child = patient(passages, EVERY_SECOND)
    until((run.folder / "held").exists)
    time.sleep(1.1)
    (run.folder / "go").touch()
    assert [line["op"] for line in child.rest() if line["op"] != "journal"] == ["started", "event"]
    assert child.status() == ORPHANED


def test_a_child_whose_server_beats_goes_on(passages):
    run, child = patient(passages, BEATEN)
    for n in range(3):
        until((run.folder / f"beat-{n}").exists)
        child.send({"op": "beat"})
    assert child.result()[-1]["op"] == "finished"


def test_a_beat_that_was_read_too_late_revives_nothing(passages):
    """A process that was suspended finds the beats of before in its socket."""
    run, child = patient(passages, EVERY_SECOND)
    until((run.folder / "held").exists)
    os.kill(child.pid, signal.SIGSTOP)
    until(lambda: Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
    child.send({"op": "beat"})
    time.sleep(1.2)
    os.kill(child.pid, signal.SIGCONT)
    until(lambda: unread(child) == 0)
    (run.folder / "go").touch()
    assert "finished" not in [line["op"] for line in child.rest()]
    assert child.status() == ORPHANED


# Budgets

SPENDER = """
def build():
    a = worker(use("Look Up", word="x"), use("Look Up", word="y"), answer("a"), role="A", tools=[look_up])
    return crew(task(a, "a"), task(worker(answer("b"), answer("c"), role="B"), "b", human_input=True))
"""


@pytest.mark.parametrize(
    ("limits", "calls", "looked_up", "finished", "said"),
    [
        ({"llm_calls": 2}, 2, 2, [], "2 LLM calls is spent; in all: 20 tokens, 2 LLM calls, 2 tool calls"),
        ({"llm_calls": 3}, 3, 2, ["a"], "3 LLM calls is spent; in all: 30 tokens, 3 LLM calls, 2 tool calls"),
        ({"tool_calls": 1}, 2, 1, [], "1 tool calls is spent; in all: 20 tokens, 2 LLM calls, 1 tool calls"),
        ({"tool_calls": 0}, 1, 0, [], "0 tool calls is spent; in all: 10 tokens, 1 LLM calls, 0 tool calls"),
        # The call that passes the limit has been made; one that can only pass it is not.
        ({"tokens": 15}, 2, 1, [], "15 tokens is spent; in all: 20 tokens, 2 LLM calls, 1 tool calls"),
        ({"tokens": 20}, 2, 2, [], "20 tokens is spent; in all: 20 tokens, 2 LLM calls, 2 tool calls"),
    ],
)
def test_a_budget_ends_a_run(passages, limits, calls, looked_up, finished, said):
    run = passages(SPENDER)
    run.go(limits=limits)
    assert (run.last["op"], run.last["kind"]) == ("failed", "budget")
    assert run.last["error"] == "the budget of " + said
    assert (len(run.calls), len(run.effects)) == (calls, looked_up)
    assert [task["task_id"] for task in run.last["tasks"]] == finished


@since("1.15.29", "the executor that a review goes through")
def test_a_budget_that_is_enough_ends_nothing(passages):
    run = passages(SPENDER)
    run.go(limits={"tokens": 40, "llm_calls": 4, "tool_calls": 2})
    run.go(approve(), limits={"tokens": 40, "llm_calls": 4, "tool_calls": 2})
    assert run.last["op"] == "finished"
    assert run.journal["spent"] == {"tokens": 40, "llm_calls": 4, "tool_calls": 2}


@since("1.15.29", "the executor that a review goes through")
def test_a_budget_is_for_all_processes_of_a_run(passages):
    run = passages(SPENDER)
    run.go(limits={"llm_calls": 4})
    assert run.last["op"] == "paused"
    run.go(reject("no"), limits={"llm_calls": 4})
    assert run.last["kind"] == "budget"
    assert len(run.calls) == 4


@since("1.15.29", "the use of tokens in the event of a call")
def test_a_model_that_tells_its_tokens_and_does_not_count_them_is_counted(passages):
    run = passages("""
from scripted import ScriptedLLM
class Telling(ScriptedLLM):
    def _emit_call_completed_event(self, **fields):
        super()._emit_call_completed_event(**fields, usage={"total_tokens": 7})
def build():
    telling = Telling.saying(answer("a"), answer("b"))
    a = Agent(role="A", goal="g", backstory="b", llm=telling)
    return crew(task(a, "a"), task(a, "b"))
""")
    run.go(limits={"tokens": 13})
    assert (
        run.last["error"] == "the budget of 13 tokens is spent; in all: 14 tokens, 2 LLM calls, 0 tool calls"
    )
    assert [task["task_id"] for task in run.last["tasks"]] == ["a"]


def test_what_a_process_spent_before_it_was_cut_is_not_forgotten(passages):
    run = passages("""
def build():
    a = worker(use("Look Up", word="x"), lambda: os.kill(os.getpid(), signal.SIGKILL), answer("a"), role="A", tools=[look_up])
    return crew(task(a, "a"))
""")
    run.go(limits={"llm_calls": 9}, status=-signal.SIGKILL)
    # The call in which it died was never told.
    assert run.journal["spent"] == {"tokens": 10, "llm_calls": 1, "tool_calls": 1}


def test_a_flow_that_is_cut_begins_anew_with_what_is_left_of_its_budget(start_flow):
    code = """
class Lab(Flow):
    @start()
    def one(self):
        return crew(task(agent(answer("a"), role="A"), "a"), task(agent(answer("b"), role="B"), "b")).kickoff().raw
"""
    lines = start_flow(code, journal={"spent": {"llm_calls": 1}}, limits={"llm_calls": 2}).result()
    assert (lines[-1]["kind"], [task["task_id"] for task in lines[-1]["tasks"]]) == ("budget", ["a"])
    [spent] = {str(line["journal"]["spent"]) for line in lines if "spent" in line.get("journal", {})}
    assert spent == str({"tokens": 0, "llm_calls": 2, "tool_calls": 0})


# Waiting in place

IN_PLACE = """
def build():
    a = worker(answer("a"), answer("a better one"), role="A")
    # JSON has no such keys.
    return crew(task(a, "a", human_input=True), task(worker(answer("b"), role="B"), "b"),
                before_kickoff_callbacks=[lambda inputs: {"when": {1: 2}}])
"""


def test_a_review_that_no_other_process_could_decide_is_waited_for_in_place(passages):
    run = passages(IN_PLACE)
    child = run.host.start(run.folder, journal={})
    paused = child.until("paused")
    assert (paused["in_place"], paused["journal"], paused["output"]) == (True, {}, "a")
    child.send({"op": "decision", **approve("Mind the bees.")})
    assert child.result()[-1]["op"] == "finished"
    assert len(run.calls) == 2
    # Older releases have no hook for it.
    assert ("Mind the bees." in run.prompts("B")[0]) == has("1.15.3")


def test_an_answer_that_is_rejected_in_place_is_made_better_there(passages):
    run = passages(IN_PLACE)
    child = run.host.start(run.folder, journal={})
    child.until("paused")
    child.send({"op": "decision", **reject("longer")})
    if not hasattr(
        importlib.import_module("crewai").Agent.model_fields["executor_class"].default, "_invoke_loop"
    ):
        # CrewAI 1.14.7 loses the conversation then; nobody is to take that for an answer to the remark.
        [*_, last] = child.result()
        assert last["kind"] == "refused"
        assert "cannot go on with an answer that was rejected" in last["error"]
        return
    assert child.until("paused")["output"] == "a better one"
    child.send({"op": "decision", **approve()})
    assert child.result()[-1]["op"] == "finished"
    assert len(run.calls) == 3
    assert "longer" in run.prompts("A")[1]


FLOW = """
class Lab(Flow):
    @start()
    def one(self):
        return self.reviewed("one")

    @start()
    async def two(self):
        return await asyncio.to_thread(self.reviewed, "two")

    def reviewed(self, name):
        worker = agent(answer("done " + name), role=name)
        return crew(task(worker, name, human_input=True, async_execution=True)).kickoff().raw

    @listen(and_(one, two))
    async def three(self):
        last = agent(lambda: answer("the end"), role="last")
        made = crew(task(last, "three", human_input=True))
        return (await made.akickoff()).raw
"""


# Where a flow's crews cannot go on in another process.
GONE = """
sys.modules["_crewcast_child.internals"].FLOWS += ("crewai:Crew.gone_in_this_release",)
"""


def test_a_flow_waits_in_place_for_one_person_after_the_other(start_flow):
    child = start_flow(GONE + FLOW, journal={})
    asked = []
    for _ in range(3):
        paused = child.until("paused")
        asked.append((paused["task_id"], paused["output"], paused["in_place"]))
        assert paused["seconds"] > 0
        # Nobody else is asked meanwhile.
        while not child.quiet():
            line = child.next()
            assert line["op"] != "paused"
            child.acknowledge(line)
        child.send({"op": "decision", **approve()})
    assert sorted(asked[:2]) == [("one", "done one", True), ("two", "done two", True)]
    assert asked[2] == ("three", "the end", True)
    last = child.result()[-1]
    assert (last["op"], last["output"]) == ("finished", "the end")
    assert sorted(task["task_id"] for task in last["tasks"]) == ["one", "three", "two"]


def test_a_comment_reaches_later_tasks_of_a_crew_in_a_flow(start_flow):
    code = """
class Lab(Flow):
    @start()
    def one(self):
        a, b = agent(answer("a"), role="A"), agent(answer("b"), role="B")
        # What the second agent was told is in its messages.
        return str(crew(task(a, "a", human_input=True), task(b, "b")).kickoff().tasks_output[1].messages)
"""
    child = start_flow(GONE + code, journal={})
    child.until("paused")
    child.send({"op": "decision", **approve("Mind the bees.")})
    assert ("Human feedback on 'a' (approved): Mind the bees." in child.result()[-1]["output"]) == has(
        "1.15.3"
    )


def test_a_crew_in_a_tool_of_a_flows_crew_cannot_ask(start_flow):
    code = """
@tool("Run")
def run_crew() -> str:
    "Run."
    return crew(task(agent(answer("x"), role="X"), "inner", human_input=True)).kickoff().raw
class Lab(Flow):
    @start()
    def one(self):
        return crew(task(agent(use("Run"), answer("a"), tools=[run_crew]), "a")).kickoff().raw
"""
    last = start_flow(code, journal={}).result()[-1]
    assert (last["kind"], last["error"]) == (
        "refused",
        "human_input=True is not supported yet; it is set on: inner",
    )


def test_a_stop_ends_the_wait(passages):
    run = passages(IN_PLACE)
    child = run.host.start(run.folder, journal={})
    child.until("paused")
    child.send({"op": "stop", "reason": "enough"})
    last = child.result()[-1]
    assert (last["kind"], last["error"]) == ("stopped", "enough")


@since("1.15.29", "the executor that a review goes through")
def test_what_is_other_than_at_a_terminal_is_said_beforehand(passages):
    run = passages("""
from crewai.agents.agent_executor import AgentExecutor
class Own(AgentExecutor):
    pass
def build():
    return crew(task(worker(executor_class=Own), "a", human_input=True),
                task(worker(), "b", human_input=True, async_execution=True))
""")
    [described] = run.host.start(run.folder, op="describe").result()
    assert described["warnings"] == [
        (
            "the task a holds a process while it waits for a person, and the wait does not outlive that: "
            "its agent has an executor_class of its own"
        ),
        (
            "the task b has async_execution and human_input: it is run by itself, after all tasks before it, "
            "whose outputs it sees"
        ),
    ]
