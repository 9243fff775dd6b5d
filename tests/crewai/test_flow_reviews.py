"""People are asked inside a flow, in another process than the one that worked, and nobody can tell from the result."""

import json
import shutil
import signal

import pytest

from crewcast.crew.child.feedback import outcome_of
from tests.crewai.driver import PROJECTS
from tests.crewai.flow_lab import flow_lab
from tests.crewai.passages import HEADER as CREWS
from tests.crewai.passages import Passages, approve, reject
from tests.crewai.releases import since

KILLED = -signal.SIGKILL
pytestmark = since("1.15.29", "the executor that a review goes through")
HEADER = (
    CREWS
    + '''
import asyncio, threading
from crewai.flow.flow import Flow, and_, listen, or_, router, start
Flow._skip_auto_memory = True
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
        at_once = Flow(self.host, self.folder / "terminal", about)
        if typed is None:
            typed = [decision["feedback"] for decision in decisions]
        (at_once.folder / "answers.json").write_text(json.dumps(typed))
        at_once.go(**fields)
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

    def begin(self, code, name="apart", status=0, blocked="", **fields):
        run = Flow(self.host, self.folder / name, project(self.folder / name, code))
        run.blocked = blocked
        run.go(status=status, **fields)
        return run


class Flow(Passages):
    """`blocked` is what the code finds in the file of that name, until the process has said its last."""

    def __init__(self, host, folder, about):
        super().__init__(host, folder)
        self.about, self.blocked = about, ""

    def go(self, decision=None, status=0, **fields):
        (self.folder / "blocked").write_text(self.blocked)
        return super().go(decision, status, about=self.about, **fields)

    def commit(self, line):
        super().commit(line)
        if line["op"] == "paused":
            # A server ends what is still at work then.
            (self.folder / "blocked").write_text("")


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


# As at a terminal

SHAPES = {
    "a crew between two others": """
class F(Flow):
    @start()
    def first(self):
        return one("A").kickoff().raw
    @listen(first)
    def second(self, found):
        return one("B", human_input=True).kickoff().raw
    @listen(second)
    def third(self, found):
        return one("C").kickoff().raw + found
""",
    "akickoff": """
class F(Flow):
    @start()
    async def first(self):
        return (await one("A").akickoff()).raw
    @listen(first)
    async def second(self, found):
        return (await one("B", human_input=True).akickoff()).raw
    @listen(second)
    async def third(self, found):
        return (await one("C", human_input=True).kickoff_async()).raw
""",
    "with the memory that CrewAI gives it": """
Flow._skip_auto_memory = False
class F(Flow):
    @start()
    def first(self):
        assert self.memory is not None
        return one("A").kickoff().raw
    @listen(first)
    def second(self, found):
        return one("B", human_input=True).kickoff().raw
""",
    "a loop of two kickoffs": """
class F(Flow):
    @start()
    def both(self):
        return [crew(task(worker(answer("x"), answer("y"), role="A"), "dig", human_input=True, callback=lambda o: note(o.raw)))
                .kickoff().raw for _ in range(2)]
""",
    "one crew object is kicked off twice": """
class F(Flow):
    @start()
    def both(self):
        who = worker(answer("x"), answer("y"), answer("z"), answer("w"), role="A")
        work = crew(task(who, "a", human_input=True), task(who, "b", description="About {n}."))
        return [work.kickoff(inputs={"n": n}).raw for n in "12"]
""",
    "a crew of several tasks": """
@tool("Note")
def noted(word: str) -> str:
    "Note it."
    note("tool", word)
    return word
class F(Flow):
    @start()
    def first(self):
        who = worker(use("Note", word="bees"), answer("a"), answer("b"), answer("c"), role="A", tools=[noted])
        made = crew(task(who, "a", callback=lambda o: note("a")), task(who, "b", human_input=True, callback=lambda o: note("b")),
                    task(who, "c"), task_callback=lambda o: note("task", o.raw))
        output = made.kickoff()
        return [output.raw, [each.raw for each in output.tasks_output], output.token_usage.total_tokens,
                made.usage_metrics.total_tokens, [each.output.raw for each in made.tasks]]
    @listen(first)
    def second(self, found):
        return [found, one("B", human_input=True).kickoff().raw]
""",
    "models, callbacks and inputs": """
class Facts(BaseModel):
    n: int
def grow(inputs):
    note("before", inputs)
    return {**inputs, "topic": inputs["topic"] + "!"}
def shrink(output):
    note("after")
    return output
class F(Flow):
    @start()
    def first(self):
        made = crew(task(worker(answer('{"n": 1}'), role="A"), "a", description="On {topic}.", output_pydantic=Facts),
                    before_kickoff_callbacks=[grow], after_kickoff_callbacks=[shrink])
        return made.kickoff(inputs={"topic": self.state["topic"]})
    @listen(first)
    def second(self, found):
        assert type(found.pydantic) is Facts and type(found.tasks_output[0].pydantic) is Facts, found
        made = crew(task(worker(answer('{"n": 2}'), role="B"), "b", description="On {topic}.", output_json=Facts, human_input=True),
                    before_kickoff_callbacks=[grow], after_kickoff_callbacks=[shrink])
        return [found.pydantic.n, made.kickoff(inputs={"topic": "b"})["n"]]
""",
    "a crew that fails is a crew that has failed": """
class F(Flow):
    @start()
    def first(self):
        try:
            crew(task(worker(*[ValueError("no")] * 9, role="A", max_retry_limit=0), "a")).kickoff()
        except ValueError as error:
            return [str(error), one("B", human_input=True).kickoff().raw]
""",
    "a join of two starts": """
DONE = threading.Event()
class F(Flow):
    @start()
    def first(self):
        found = one("A").kickoff().raw
        DONE.set()
        return found
    @start()
    def second(self):
        DONE.wait(30)
        return one("B").kickoff().raw
    @listen(and_(first, second))
    def third(self):
        return one("C", human_input=True).kickoff().raw
""",
    "a flow inside a flow": """
class Inner(Flow):
    @start()
    def deep(self):
        return one("A", human_input=True).kickoff().raw
class F(Flow):
    @start()
    def first(self):
        return Inner().kickoff()
    @listen(first)
    def second(self, found):
        return found + one("B", human_input=True).kickoff().raw
""",
    "the state is a model": """
class State(BaseModel):
    topic: str = ""
    seen: list[str] = []
class F(Flow[State]):
    @start()
    def first(self):
        self.state.seen.append(one("A").kickoff().raw)
    @listen(first)
    def second(self):
        self.state.seen.append(one("B", human_input=True).kickoff().raw)
    @listen(second)
    def third(self):
        self.state.seen.append(one("C", human_input=True).kickoff().raw)
        return [self.state.topic, self.state.seen]
""",
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_flow_is_approved_as_at_a_terminal(flow, shape):
    reviews = {"a loop of two kickoffs": 2, "one crew object is kicked off twice": 2}
    count = reviews.get(shape, SHAPES[shape].count("human_input=True"))
    run = flow(SHAPES[shape], *[approve()] * count, inputs={"topic": "bees"})
    assert "could not be" not in run.child.log()
    assert "empty scope stack" not in run.child.log()


def test_a_rejected_task_of_a_flow_goes_on_with_its_conversation(flow):
    run = flow(SHAPES["a crew between two others"], reject("too short"), approve())
    assert [lines[-1]["output"] for lines in run.processes] == ["done B", "better B", "done Cbetter B"]
    assert "too short" in run.prompts("B")[1]
    assert run.processes[0][-1]["uuid"] == run.processes[1][-1]["uuid"]


# Cut


def test_a_flow_that_is_cut_goes_on_with_the_task_that_was_cut(flow):
    run = flow.begin(
        """
class F(Flow):
    @start()
    def first(self):
        return one("A").kickoff().raw
    @listen(first)
    def plain(self, found):
        note("plain")
        return found + "!"
    @listen(plain)
    def second(self, found):
        who = worker(answer("b1"), lambda: once("B") or answer("b2"), answer("b2"), answer("b3"), role="B")
        return crew(task(who, "b1", callback=lambda o: note("b1")), task(who, "b2"), task(who, "b3")).kickoff().raw
    @listen(second)
    def third(self, found):
        return found + one("C").kickoff().raw
""",
        status=KILLED,
    )
    run.go()
    assert run.last["output"] == "b3done C"
    # One call of A, those of B with the one that was cut, and one of C.
    assert [call["llm"] for call in run.calls] == ["A", "B", "B", "B", "B", "C"]
    # The code of a method runs again, and is told once.
    assert run.effects == [["plain"], ["b1"], ["plain"]]
    outputs = [
        ("a", "done A"),
        ("plain", "done A!"),
        ("b1", "b1"),
        ("b2", "b2"),
        ("b3", "b3"),
        ("c", "done C"),
    ]
    assert ends(run) == outputs
    assert [(task["task_id"], task["output"]) for task in run.last["tasks"]] == outputs


def test_what_a_finished_method_did_itself_is_told_once(flow):
    run = flow.begin(
        """
class F(Flow):
    @start()
    def first(self):
        return llm("A", "a title", "another title").call("x")
    @listen(first)
    def second(self, found):
        note(found)
        llm("B", "hm", "hm again").call("x")
        once("second")
        return one("C").kickoff().raw
""",
        status=KILLED,
    )
    run.go()
    assert run.effects == [["a title"], ["another title"]]
    thoughts = [
        (line["task_id"], line["response"]) for line in run.events if line["type"] == "llm_call_completed"
    ]
    # The first had ended, the second had not.
    assert thoughts[:3] == [("first", "a title"), ("second", "hm"), ("second", "hm again")]
    assert ends(run) == [("first", "a title"), ("c", "done C"), ("second", "done C")]


def test_names_stay_those_of_the_first_process(flow):
    """Two branches, of which the one that began first is late when they begin again."""
    run = flow.begin(
        """
BEGAN = threading.Event()
def dig(who, *replies):
    return crew(task(worker(*replies, role=who), "dig")).kickoff().raw
class F(Flow):
    @start()
    def slow(self):
        if "die" in str(read(EFFECTS)):
            BEGAN.wait(30)
        return dig("A", lambda: BEGAN.set() or time.sleep(600), answer("a"))
    @start()
    def quick(self):
        if not "die" in str(read(EFFECTS)):
            BEGAN.wait(30)
        return dig("B", lambda: BEGAN.set() or once("now") or answer("b"), lambda: BEGAN.set() or answer("b"))
    @listen(and_(slow, quick))
    def end(self):
        return "end"
""",
        status=KILLED,
    )
    run.go()
    assert [(task["task_id"], task["output"]) for task in run.last["tasks"]] == [
        ("dig", "a"),
        ("dig-2", "b"),
        ("end", "end"),
    ]


# Side by side

BRANCHES = """
# One of the branches ends the process when it asks. What the other one has finished by then: both first tasks in the first
# process, the second task that was approved in the next one. Or it may be cut off between a callback and the task's end.
note("process")
ENDS = {1: 2, 2: 1}.get(read(EFFECTS).count(["process"]))
def asked(who):
    made = crew(task(worker(answer("first " + who), answer("again"), answer("and again"), role=who), who.lower() + "1",
                     callback=lambda o: note(o.raw)),
                task(worker(*[lambda: asking(who)] * 9, role=who * 2), who.lower() + "2", human_input=True,
                     callback=lambda o: note(o.raw)))
    return made.kickoff().raw
def asking(who):
    committed(ENDS)
    return answer("second " + who)
class F(Flow):
    @start()
    def one(self):
        return asked("A")
    @start()
    def two(self):
        return asked("B")
    @listen(and_(one, two))
    def both(self):
        return "both"
"""


def test_people_of_two_branches_are_asked_one_after_the_other(flow):
    run = flow.apart(BRANCHES, approve(), approve())
    assert run.last["output"] == "both"
    asked = [lines[-1]["task_id"] for lines in run.processes[:-1]]
    assert sorted(asked) == ["a2", "b2"]
    # What was finished is finished, each callback was called once.
    assert sorted(run.effects) == [["first A"], ["first B"], *[["process"]] * 3, ["second A"], ["second B"]]
    assert sorted(ends(run)) == [
        ("a1", "first A"),
        ("a2", "second A"),
        ("b1", "first B"),
        ("b2", "second B"),
        ("both", "both"),
    ]


def test_a_decision_waits_while_another_branch_asks_first(flow):
    """In the second process, the branch that was decided on never comes to its crew: the other asks and ends it."""
    run = flow.begin(
        """
from pathlib import Path
def blocked(who):
    while Path("blocked").read_text() == who:
        time.sleep(0.01)
class F(Flow):
    @start()
    def one_(self):
        blocked("A")
        return one("A", human_input=True).kickoff().raw
    @start()
    def two(self):
        blocked("B")
        return one("B", human_input=True).kickoff().raw
    @listen(and_(one_, two))
    def both(self):
        return "both"
""",
        blocked="B",
    )
    assert run.last["task_id"] == "a"
    run.blocked = "A"
    run.go(approve("Mind the bees."))
    assert run.last["task_id"] == "b"
    run.blocked = ""
    run.go(approve())
    assert run.last["output"] == "both"
    assert sorted(ends(run)) == [("a", "done A"), ("b", "done B"), ("both", "both")]
    assert [len(run.prompts(who)) for who in "AB"] == [1, 1]


SEVERAL = {
    "gather": "[each.raw for each in await asyncio.gather(*(made.copy().akickoff(inputs={'n': n}) for n in 'xyz'))]",
    "for each": "[each.raw for each in await made.akickoff_for_each([{'n': n} for n in 'xyz'])]",
    "threads": "[each.raw for each in await made.kickoff_for_each_async([{'n': n} for n in 'xyz'])]",
    "in turn": "[each.raw for each in made.kickoff_for_each([{'n': n} for n in 'xyz'])]",
}


@pytest.mark.parametrize("way", SEVERAL)
def test_people_are_asked_for_each_of_several_kickoffs(flow, way):
    """Each ends the process while the others are somewhere in their work; each is decided on once, with its own words."""
    run = flow.begin(f"""
class Own(type(llm("x"))):
    def call(self, messages, **named):
        self._replies = [answer("about " + str(messages).split("Now about ")[1][0])] * 99
        return super().call(messages, **named)
class F(Flow):
    @start()
    {"async " * ("await" in SEVERAL[way])}def first(self):
        who = worker(role="A")
        who.llm = Own(model="A")
        made = crew(task(who, "dig", description="Now about {{n}}.", human_input=True, callback=lambda output: note(output.raw)))
        return {SEVERAL[way]}
""")
    asked = []
    while run.last["op"] == "paused":
        asked.append((run.last["task_id"], run.last["output"]))
        run.go(approve())
    assert run.last["op"] == "finished", run.last
    assert run.last["output"] == '["about x", "about y", "about z"]'
    assert sorted(output for _, output in asked) == ["about x", "about y", "about z"]
    assert sorted(task_id for task_id, _ in asked) == ["dig", "dig-2", "dig-3"]
    effects = sorted(run.effects)
    if way == "threads":
        # What another's pause cuts between its callback and its end is done again.
        effects = [each for n, each in enumerate(effects) if each not in effects[:n]]
    assert effects == [["about x"], ["about y"], ["about z"]]
    assert sorted(ends(run)[:3]) == sorted(asked)


def test_crews_side_by_side_are_told_apart_by_their_inputs(flow):
    run = flow.begin(
        """
class F(Flow):
    @start()
    async def first(self):
        found = await asyncio.gather(*(made(n).kickoff_async(inputs={"n": n}) for n in self.order()))
        return sorted(each.raw for each in found)
    def order(self):
        return "0123" if "die" not in str(read(EFFECTS)) else "3210"
def made(n):
    def say():
        if "die" not in str(read(EFFECTS)):
            if n == "2":
                # Those of 0 and 1.
                committed(2)
                once("now")
            elif n == "3":
                time.sleep(600)
        return answer("done " + n)
    return crew(task(worker(*[say] * 20, role="A"), "dig", description="About {n}.", callback=lambda _: note("told", n)))
""",
        status=KILLED,
    )
    run.go()
    assert run.last["output"] == '["done 0", "done 1", "done 2", "done 3"]'
    assert sorted(effect[1] for effect in run.effects) == list("0123")
    assert sorted(output for _, output in ends(run) if output.startswith("done")) == [
        f"done {n}" for n in "0123"
    ]


# What cannot go on


def test_another_flow_does_not_go_on(flow):
    run = flow.begin(TWO)
    file = run.folder / "src/lab/main.py"
    file.write_text(file.read_text().replace("def third", "def fourth"))
    run.go(approve())
    assert (run.last["op"], run.last["kind"]) == ("failed", "refused")
    assert run.last["error"] == (
        "the run cannot go on: the flow had the methods first, second, third, and now has first, fourth, second"
    )
    assert [task["task_id"] for task in run.last["tasks"]] == ["a"]


def test_a_crew_that_is_other_in_each_process_does_not_ask_for_ever(flow):
    run = flow.begin("""
class F(Flow):
    @start()
    def first(self):
        return crew(task(worker(answer("x"), answer("y")), "a", description=f"It is {os.getpid()}.", human_input=True)).kickoff()
""")
    run.go(approve())
    assert (run.last["op"], run.last["kind"]) == ("failed", "refused")
    assert run.last["error"] == (
        "the run cannot go on: the method first did not come again to the crew that waited for a person: the words of "
        "its tasks are other ones in each process"
    )


def test_the_time_of_day_in_the_inputs_is_no_other_crew(flow):
    run = flow.apart(
        """
class F(Flow):
    @start()
    def first(self):
        made = crew(task(worker(answer("x")), "a", description="It is {now}.", human_input=True))
        return made.kickoff(inputs={"now": time.time()}).raw
""",
        approve(),
    )
    assert len(run.calls) == 1


def test_a_crew_whose_output_no_other_process_has_is_not_gone_on_with(flow):
    run = flow.begin(
        """
class Strange:
    pass
class F(Flow):
    @start()
    def first(self):
        one("A", after_kickoff_callbacks=[lambda output: Strange()]).kickoff()
        once("now")
        return one("B", human_input=True).kickoff().raw
""",
        status=KILLED,
    )
    run.go()
    assert run.last["kind"] == "refused"
    assert run.last["error"] == (
        "the run cannot go on: what the crew in the method first returned is no JSON: Strange"
    )


def in_place(run, *decisions):
    """One process that waits for people; its lines."""
    child = run.host.start(run.folder, journal={}, about=run.about)
    lines = []
    for decision in decisions:
        while (line := child.next()) is not None and line["op"] != "paused":
            child.acknowledge(line)
            lines.append(line)
        assert line["in_place"], line
        lines.append(line)
        child.send({"op": "decision", **decision})
    return [*lines, *child.result()]


def waiting(flow, code):
    """A run that no process has begun yet."""
    return Flow(flow.host, flow.folder / "waiting", project(flow.folder / "waiting", code))


def test_where_a_crew_could_not_answer_again_people_are_waited_for_in_the_process(flow):
    run = waiting(
        flow,
        """
class Strange:
    pass
class F(Flow):
    @start()
    def first(self):
        one("A", after_kickoff_callbacks=[lambda output: Strange()]).kickoff()
        return one("B", human_input=True).kickoff().raw
    @listen(first)
    def second(self, found):
        return one("C", human_input=True).kickoff().raw + found
""",
    )
    lines = in_place(run, reject("longer"), approve(), approve())
    assert [line["output"] for line in lines if line["op"] == "paused"] == ["done B", "better B", "done C"]
    assert lines[-1]["output"] == "done Cbetter B"


def test_a_crew_that_lists_a_task_twice_is_answered_when_it_is_over_and_holds_the_process_before(flow):
    code = """
class F(Flow):
    @start()
    def first(self):
        twice = task(worker(*map(answer, "abc"), role="A"), "twice")
        return crew(twice, twice).kickoff().raw
    @listen(first)
    def second(self, found):
        return one("B", human_input=True).kickoff().raw + found
"""
    assert flow.apart(code, approve()).last["output"] == "done Bb"
    asking = code.replace('role="A"), "twice"', 'role="A"), "twice", human_input=True').replace(
        '"B", human_input=True', '"B"'
    )
    lines = in_place(waiting(flow, asking), reject("longer"), approve(), approve())
    assert [line["output"] for line in lines if line["op"] == "paused"] == ["a", "b", "c"]
    assert lines[-1]["output"] == "done Bc"


def test_a_crew_that_lists_a_task_twice_and_is_cut_is_not_gone_on_with(flow):
    run = flow.begin(
        """
class F(Flow):
    @start()
    def first(self):
        twice = task(worker(answer("a"), lambda: once("now"), role="A"), "twice")
        return crew(twice, twice).kickoff().raw
""",
        status=KILLED,
    )
    run.go()
    assert (run.last["kind"], [each["task_id"] for each in run.last["tasks"]]) == ("refused", ["twice"])
    assert run.last["error"] == (
        "the run cannot go on: the crew in the method first: the crew lists one task several times"
    )


def test_a_decision_that_the_flow_does_not_come_to_again_is_told_of(flow):
    run = flow.begin("""
class F(Flow):
    @router("begin_")
    def unused(self):
        return "x"
    @start()
    def first(self):
        if CALLS.exists():
            return "another way"
        return one("A", human_input=True).kickoff().raw
""")
    run.go(approve())
    assert run.last["output"] == "another way"
    assert "a decision was not used, the flow took another way: crew:first|1|" in run.child.log()


# Judged methods

JUDGED = """
class F(Flow):
    @start()
    @feedback()
    def draft(self):
        note("draft")
        self.state["drafts"] = self.state.get("drafts", 0) + 1
        return one("A").kickoff().raw
    @listen(draft)
    def publish(self, result):
        note("publish", result.output, result.feedback, self.state["drafts"])
        return one("B").kickoff().raw
"""


def test_a_method_that_is_judged_is_not_run_again(flow):
    run = flow(JUDGED, approve("Mind the bees."))
    paused = run.processes[0][-1]
    assert (paused["task_id"], paused["output"], paused["index"]) == ("draft", "done A", 2)
    assert (paused["message"], paused["outcomes"]) == ("Good?", [])
    assert run.effects == [["draft"], ["publish", "done A", "Mind the bees.", 1]]
    # What was approved is the output, and not what CrewAI made of the decision.
    assert ends(run) == [("a", "done A"), ("draft", "done A"), ("b", "done B")]
    assert len(run.calls) == 2


def test_an_approval_without_words_is_enter(flow):
    flow(JUDGED, approve(), typed=[""])


def test_a_rejection_without_words_says_so(flow):
    run = flow(JUDGED, reject(""), typed=["rejected"])
    assert run.effects[1][2] == "rejected"


def test_words_that_are_not_to_be_passed_on_are_not(flow):
    run = flow(JUDGED, approve("Mind the bees.", pass_feedback=False), typed=[""])
    assert run.effects[1][2] == ""


ROUTED = """
CLASSIFIER = llm("C", *['{"outcome": "needs_revision"}', '{"outcome": "approved"}'] * 2)
class F(Flow):
    @start()
    def begin(self):
        self.state["n"] = 0
    @listen(or_(begin, "needs_revision"))
    @feedback("Publish?", emit=["needs_revision", "approved", "rejected"], llm=CLASSIFIER, default_outcome="needs_revision")
    def draft(self):
        self.state["n"] += 1
        note("draft", self.state["n"])
        return f"draft {self.state['n']}"
    @listen("approved")
    def publish(self, result):
        return [result.output, result.feedback, one("A", human_input=True).kickoff().raw]
    @listen("rejected")
    def drop(self, result):
        return ["dropped", result.output, result.feedback]
"""


def test_an_outcome_is_that_of_the_decision_and_words_are_for_the_model(flow):
    run = flow.apart(ROUTED, reject("Shorter."), approve(), reject("longer"), approve())
    assert [(lines[-1].get("task_id"), lines[-1]["output"]) for lines in run.processes] == [
        ("draft", "draft 1"),
        ("draft-2", "draft 2"),
        ("a", "done A"),
        ("a", "better A"),
        (None, '["draft 2", "", "better A"]'),
    ]
    assert run.processes[0][-1]["outcomes"] == ["needs_revision", "approved", "rejected"]
    # No draft is made twice, no words are classified twice.
    assert run.effects == [["draft", 1], ["draft", 2]]
    assert len(run.prompts("C")) == 1


def test_words_are_classified_as_at_a_terminal(flow):
    run = flow(ROUTED, reject("Shorter."), approve("Go ahead."), approve())
    assert run.last["output"] == '["draft 2", "Go ahead.", "done A"]'


STATEFUL = """
from datetime import date
class Part(BaseModel):
    name: str
    day: date
class State(BaseModel):
    parts: list[Part] = []
    n: int = 0
class F(Flow[State]):
    @start()
    def begin(self):
        self.state.n += 1
    @listen(begin)
    @feedback()
    async def draft(self):
        self.state.parts.append(Part(name="a", day=date(2024, 2, 29)))
        note("draft")
        return Part(name="b", day=date(2024, 3, 1))
    @listen(draft)
    def middle(self, result):
        assert type(result.output) is Part, result
        self.state.n += 1
        return one("A", human_input=True).kickoff().raw
    @listen(middle)
    def end(self):
        return [self.state.n, [repr(part) for part in self.state.parts], len(self.human_feedback_history)]
"""


def test_what_a_judged_method_changed_in_the_state_is_changed(flow):
    run = flow(STATEFUL, approve(), reject("longer"), approve())
    assert run.effects == [["draft"]]
    assert json.loads(run.last["output"]) == [
        2,
        ["Part(name='a', day=datetime.date(2024, 2, 29))"],
        1,
    ]


HELD = {
    "what it returns": "return object()",
    "what it puts into the state": 'self.state["x"] = object(); return 1',
    "what it puts into the flow": "self.kept = 1; return 1",
}


@pytest.mark.parametrize("why", HELD)
def test_a_method_whose_work_is_no_json_is_judged_in_the_process(flow, why):
    code = f"""
class F(Flow):
    @start()
    @feedback()
    def draft(self):
        {HELD[why]}
    @listen(draft)
    def end(self, result):
        return result.feedback
"""
    lines = in_place(waiting(flow, code), reject("No."))
    assert lines[-1]["output"] == "No."


def test_a_judgement_is_kept_when_the_flow_is_cut(flow):
    run = flow.begin(ROUTED.replace("return [result.output", "once('now'); return [result.output"))
    run.go(approve("Go ahead."), status=0)
    assert run.last["task_id"] == "draft-2"
    run.go(approve("Go ahead."), status=KILLED)
    run.go()
    assert run.last["task_id"] == "a"
    run.go(approve())
    assert run.last["output"] == '["draft 2", "Go ahead.", "done A"]'
    assert len(run.prompts("C")) == 2
    assert run.effects == [["draft", 1], ["draft", 2]]


def test_a_provider_of_the_projects_own_that_leaves_is_no_result(flow):
    run = flow.begin("""
from crewai.flow.async_feedback import HumanFeedbackPending
class Leaving:
    def request_feedback(self, context, flow):
        raise HumanFeedbackPending(context=context)
class F(Flow):
    @start()
    @human_feedback(message="Good?", provider=Leaving())
    def draft(self):
        return "a draft"
""")
    assert run.last["error"].startswith(
        "the provider of @human_feedback on draft leaves the flow to code of its own"
    )


def test_a_person_is_asked_in_place_of_a_console(flow):
    run = flow.apart(
        """
from crewai.flow.async_feedback.providers import ConsoleProvider
class F(Flow):
    @start()
    @human_feedback(message="Good?", provider=ConsoleProvider())
    def draft(self):
        return "a draft"
    @listen(draft)
    def end(self, result):
        return result.feedback
""",
        reject("No."),
    )
    assert run.last["output"] == "No."


def test_a_persisted_flow_begins_with_the_state_it_began_with(flow):
    """And not with what the process that was cut has persisted."""
    run = flow.begin(
        """
from crewai.flow.persistence import persist
@persist()
class F(Flow):
    @start()
    def first(self):
        self.state["n"] = self.state.get("n", 0) + 1
        note(self.state["n"], self.state["id"])
    @listen(first)
    def second(self):
        return [one("A", human_input=True).kickoff().raw, self.state["n"]]
""",
        inputs={"id": "one-and-the-same"},
    )
    run.go(approve(), inputs={"id": "one-and-the-same"})
    assert run.effects == [[1, "one-and-the-same"]] * 2
    assert run.last["output"] == '["done A", 1]'


def test_the_id_of_a_flows_state_stays(flow):
    run = flow.begin("""
class F(Flow):
    @start()
    def first(self):
        note(self.state["id"])
        return one("A", human_input=True).kickoff().raw
""")
    run.go(approve())
    assert run.effects[0] == run.effects[1]


def test_what_a_flow_has_used_is_counted_over_all_processes(flow):
    run = flow.apart(TWO, approve(), limits={"tokens": 100, "llm_calls": 2, "tool_calls": 0})
    assert run.journal["spent"] == {"tokens": 20, "llm_calls": 2, "tool_calls": 0}
    assert run.last["usage"]["total_tokens"] == 20


# The rule


@pytest.mark.parametrize(
    ("approves", "words", "outcomes", "default", "taken"),
    [
        (True, "", ["approved", "rejected"], None, "approved"),
        (False, "", ["approved", "rejected"], None, "rejected"),
        (True, "", ["rejected", "approved"], "rejected", "approved"),
        (True, "", ["needs_revision", "publish"], "needs_revision", "publish"),
        (False, "", ["approved", "needs_revision"], "approved", "needs_revision"),
        (False, "", ["approved", "needs_revision", "rejected"], "needs_revision", "rejected"),
        (True, "", ["left", "right"], None, "left"),
        (True, "", ["left", "right"], "right", "right"),
        (False, "", ["left", "right"], None, "right"),
        (False, "", ["only"], None, "only"),
        (True, "", ["not approved", "fine"], None, "fine"),
        (True, "REJECTED", ["approved", "rejected"], None, "rejected"),
        (True, "but shorter", ["approved", "rejected"], None, None),
    ],
)
def test_which_outcome_a_decision_takes(approves, words, outcomes, default, taken):
    assert outcome_of(words, outcomes, default, approves=approves) == taken
