"""A run that is cut goes on in another process where it was: after its last finished task."""

import signal

import pytest

from tests.crewai.passages import Passages, approve, project
from tests.crewai.releases import since

pytestmark = since("1.15.29", "the executor that a review goes through")
KILLED = -signal.SIGKILL


@pytest.fixture
def passages(lab_host, tmp_path):
    """A run of the crew in this code, and the same without the kills in it."""

    def make(code, name="cut", **fields):
        (tmp_path / name).mkdir()
        return Passages(lab_host, project(tmp_path / name, code), **fields)

    yield make
    lab_host.hang_up()


@pytest.fixture
def cut(passages):
    """The run, killed where it says `once(...)`, and held against the same run of one process."""

    def cut(code, kills=1, **fields):
        run = passages(code)
        for _ in range(kills):
            run.go(status=KILLED, **fields)
        run.go(**fields)
        whole = passages("def once(word):\n    pass\n" + code, "whole", keeps=False)
        whole.go(**fields)
        ours, theirs = run.story(), whole.story()
        assert ours["end"] == theirs["end"]
        assert ours["effects"] == theirs["effects"]
        # What the kill cut is done again; all before it is told once.
        assert [line for line in ours["events"] if line["type"] == "task_completed"] == [
            line for line in theirs["events"] if line["type"] == "task_completed"
        ]
        return run, whole

    return cut


def llm_dies(role):
    """A model whose first call ends the process; the call is numbered all the same."""
    return f"""
    {role.lower()}.llm._replies = [lambda: once("now") or answer("done {role}"), answer("done {role}")]"""


FOUR = """
def build():
    a, b, c, d = (worker(answer("done " + role), role=role) for role in "ABCD")""" + llm_dies("C")


def test_finished_tasks_are_not_run_again(cut):
    run, whole = cut(
        FOUR
        + """
    return crew(*(task(who, who.role.lower(), callback=lambda output: note("callback", output.raw)) for who in (a, b, c, d)))
"""
    )
    # One call more than the four of the run that nobody cut.
    assert len(run.calls) == 5
    assert run.calls[:3] == whole.calls[:3]
    assert run.calls[3:] == whole.calls[2:]
    assert run.last["usage"]["total_tokens"] == 40
    assert [line["task_id"] for line in run.events if line["type"] == "task_started"] == [
        "a",
        "b",
        "c",
        "c",
        "d",
    ]


def test_the_context_of_later_tasks_is_as_it_was(cut):
    run, whole = cut(
        FOUR
        + """
    one, two, three = task(a, "one"), task(b, "two"), task(c, "three")
    return crew(one, two, three, task(d, "four", context=[one, three]))
"""
    )
    assert run.calls[3:] == whole.calls[2:]


def test_a_skipped_task_stays_skipped(cut):
    run, whole = cut(
        FOUR
        + """
    skipped = ConditionalTask(name="skipped", description="D", expected_output="E", agent=a,
                              condition=lambda output: bool(note("asked")))
    one, two = task(a, "one"), task(b, "two", callback=lambda output: note("two"))
    return crew(one, skipped, two, task(c, "three", context=[one, skipped, two]), task(d, "four", context=[skipped]))
"""
    )
    assert run.effects == [["asked"], ["two"]]
    assert run.calls[3:] == whole.calls[2:]


def test_the_callback_before_the_kickoff_is_not_called_again(cut):
    run, _ = cut(
        """
def grow(inputs):
    note("before")
    return {"topic": inputs["topic"] + "!"}
"""
        + FOUR
        + """
    return crew(task(a, "a", "On {topic}."), task(c, "c", "On {topic}."), before_kickoff_callbacks=[grow])
""".replace('"On', 'description="On'),
        inputs={"topic": "bees"},
    )
    assert run.effects == [["before"]]
    assert "On bees!." in run.prompts("C")[1]


def test_a_crew_that_plans_does_not_plan_again(cut):
    run, whole = cut(
        """
from crewai.utilities.planning_handler import PlannerTaskPydanticOutput, PlanPerTask
def plan():
    note("planned")
    return PlannerTaskPydanticOutput(list_of_plans_per_task=[
        PlanPerTask(task_number=n, task="t", plan=" Plan " + str(n) + ".") for n in (1, 2)]).model_dump_json()
"""
        + FOUR
        + """
    return crew(task(a, "a"), task(c, "c"), planning=True, planning_llm=llm("planner", plan, plan))
"""
    )
    assert run.effects == [["planned"]]
    assert run.prompts("C")[1] == whole.prompts("C")[0]
    assert "Plan 2." in run.prompts("C")[1]


def test_outputs_are_what_they_were(cut):
    cut(
        """
class Facts(BaseModel):
    n: int
def look(output):
    note(output.raw, [(type(each.pydantic).__name__, each.json_dict, each.output_format, each.agent, len(each.messages))
                      for each in output.tasks_output])
    return output
"""
        + FOUR
        + """
    a.llm._replies, b.llm._replies = [answer('{"n": 1}')], [answer('{"n": 2}')]
    return crew(task(a, "a", output_pydantic=Facts), task(b, "b", output_json=Facts), task(c, "c"),
                after_kickoff_callbacks=[look])
"""
    )


def test_a_task_that_ended_beside_the_one_that_was_cut_is_not_run_again(cut):
    """CrewAI itself runs everything after the first task that has no output."""
    run, whole = cut(
        FOUR
        + """
    c.llm._replies[0] = lambda: committed(1) or once("now") or answer("done C")
    return crew(task(c, "c", async_execution=True), task(b, "b", async_execution=True, callback=lambda output: note("b")),
                task(d, "d"))
"""
    )
    assert run.effects == [["b"]]
    assert run.prompts("D") == whole.prompts("D")


def test_a_run_that_was_cut_after_its_last_task_only_ends(cut):
    run, _ = cut(
        """
def look(output):
    once("after")
    note("after")
    return output
def build():
    return crew(task(worker(answer("a")), "a"), after_kickoff_callbacks=[look])
"""
    )
    assert len(run.calls) == 1
    assert run.effects == [["after"]]


def test_what_a_manager_has_used_is_counted(cut):
    run, _ = cut(
        """
def build():
    b = worker(answer("helped"), role="B")
    boss = llm("boss", use("delegate_work_to_coworker", task="do it", context="now", coworker="B"), answer("one"),
               lambda: once("now") or answer("two"), answer("two"))
    if once.__doc__ is None:
        del boss._replies[2]
    return Crew(agents=[b], process=Process.hierarchical, manager_llm=boss,
                tasks=[Task(name=name, description="D", expected_output="E") for name in ("one", "two")])
"""
    )
    assert run.last["usage"]["total_tokens"] == 40
    assert len(run.prompts("B")) == 1


def test_another_run_may_begin_with_the_tasks_of_one_that_is_over(passages):
    """With what began that run and the tasks that are kept, and nothing else."""
    run = passages("""
def build():
    a, c, d = (worker(answer("done " + role), answer("anew " + role), role=role) for role in "ACD")
    one, two = task(a, "one"), task(c, "two")
    skipped = ConditionalTask(name="skipped", description="D", expected_output="E", agent=a, condition=lambda output: bool(note("asked")))
    return crew(one, skipped, two, task(d, "three", context=[one, skipped, two]))
""")
    run.go()
    run.journal = {name: run.journal[name] for name in ("run", "task:one", "task:two")}
    lines = run.go()
    assert [line["task_id"] for line in lines if line["op"] == "event"] == ["three"] * 3
    assert run.last["output"] == "anew D"
    assert [task["output"] for task in run.last["tasks"]] == ["done A", "done C", "anew D"]
    assert run.prompts("D")[0] == run.prompts("D")[1]
    assert [len(run.prompts(who)) for who in "AC"] == [1, 1]


# Reviews, and processes that are cut

REVIEWED = """
def build():
    a, b, c = (worker(answer("done " + role), role=role) for role in "ABC")
    b.llm._replies = [lambda: once("now") or answer("done B"), answer("done B")]
    return crew(task(a, "a", human_input=True), task(b, "b"), task(c, "c", human_input=True))
"""


def test_nobody_is_asked_again_after_a_cut(passages):
    run = passages(REVIEWED)
    run.go()
    run.go(approve("Mind the bees."), status=KILLED)
    assert "pending" not in run.journal
    assert run.journal["comment:a"] == {"text": "Mind the bees."}
    # A decision for a review that is over is none for the next.
    run.go(approve())
    assert (run.last["op"], run.last["task_id"]) == ("paused", "c")
    run.go(approve())
    assert run.last["op"] == "finished"
    assert [len(run.prompts(who)) for who in "ABC"] == [1, 2, 1]
    # The comment is there in every process.
    assert ["Mind the bees." in prompt for who in "BC" for prompt in run.prompts(who)] == [True] * 3


def test_a_cut_before_the_approved_task_ends_takes_the_decision_again(passages):
    run = passages("""
def build():
    return crew(task(worker(answer("a draft")), "a", human_input=True, callback=lambda output: once("callback") or note("callback")))
""")
    run.go()
    run.go(approve(), status=KILLED)
    assert run.journal["pending"]["task"] == "a"
    run.go(approve())
    assert run.last["op"] == "finished"
    assert run.effects == [["callback"]]
    assert len(run.calls) == 1


def test_a_run_that_waits_and_is_started_without_a_decision_waits_on(passages):
    run = passages(REVIEWED)
    run.go()
    before = run.journal["pending"]
    run.go()
    assert (run.last["op"], run.last["output"]) == ("paused", "done A")
    assert {**run.journal["pending"], "seconds": 0} == {**before, "seconds": 0}
    assert len(run.calls) == 1


# What cannot go on

CHANGES = {
    "the crew had the tasks a, b, and now has a, bees": ('"b", "Find', '"bees", "Find'),
    "these tasks are described in other words than when it began: b": ('"Find it."', '"Find it all."'),
}


@pytest.mark.parametrize("why", CHANGES)
def test_another_crew_does_not_go_on(passages, why):
    code = """
def build():
    return crew(task(worker(answer("a"), role="A"), "a", human_input=True), task(worker(answer("b"), role="B"), "b", "Find it."))
"""
    run = passages(code)
    run.go()
    file = run.folder / "src/newsroom/crew.py"
    file.write_text(file.read_text().replace(*CHANGES[why]))
    run.go(approve())
    assert (run.last["op"], run.last["kind"]) == ("failed", "refused")
    assert run.last["error"] == "the run cannot go on: " + why


def test_another_crewai_does_not_go_on(passages):
    run = passages(REVIEWED)
    run.go()
    run.journal["run"]["crewai"] = "1.0.0"
    run.go(approve())
    assert run.last["kind"] == "refused"
    assert "it began with CrewAI 1.0.0, and this is CrewAI " in run.last["error"]


def test_inputs_that_are_no_json_do_not_go_on(passages):
    run = passages("""
def build():
    a, b = worker(answer("a"), role="A"), worker(lambda: once("now"), role="B")
    return crew(task(a, "a"), task(b, "b"), before_kickoff_callbacks=[lambda inputs: {"when": {1: 2}}])
""")
    run.go(status=KILLED)
    run.go()
    assert run.last["kind"] == "refused"
    assert run.last["error"].endswith("its inputs, as a before_kickoff callback made them, are no JSON")
    assert [task["task_id"] for task in run.last["tasks"]] == ["a"]


def test_a_run_of_which_nothing_is_done_begins_anew_however_the_crew_has_changed(passages):
    run = passages("""
def build():
    return crew(task(worker(lambda: once("now") or answer("a"), answer("a")), "a"))
""")
    run.go(status=KILLED)
    assert list(run.journal) == ["run"]
    run.journal["run"]["crewai"] = "1.0.0"
    run.go()
    assert run.last["op"] == "finished"
    assert run.journal["run"]["crewai"] != "1.0.0"


# What CrewAI itself does around a review

EVENTS = """
from crewai.events.event_bus import CrewAIEventsBus
emit = CrewAIEventsBus.emit
def listed(self, source, event):
    note(event.type, getattr(event, "started_event_id", None) if event.type == "crew_kickoff_completed" else event.event_id
         if event.type == "crew_kickoff_started" else None)
    return emit(self, source, event)
CrewAIEventsBus.emit = listed
"""
# Told twice by CrewAI when a task is taken up again, in this order.
REPEATED = ["task_started", "agent_execution_started", "agent_logs_started", "agent_logs_execution"]
OF_A_TASK = {
    *REPEATED,
    "llm_call_started",
    "llm_call_completed",
    "agent_execution_completed",
    "task_completed",
}


def test_four_events_of_a_task_that_is_taken_up_again_are_repeated_and_none_of_a_call(passages):
    run = passages(EVENTS + "def build():\n    return crew(task(worker(answer('a')), 'a', human_input=True))")
    run.go()
    before = len(run.effects)
    run.go(approve())
    first = [kind for kind, _ in run.effects[:before] if kind in OF_A_TASK]
    second = [kind for kind, _ in run.effects[before:] if kind in OF_A_TASK]
    assert first == [*REPEATED[:3], "llm_call_started", "llm_call_completed", REPEATED[3]]
    assert second == [*REPEATED, "agent_execution_completed", "task_completed"]
    # The crew began once, and its end names that beginning.
    [began] = [id_ for kind, id_ in run.effects if kind == "crew_kickoff_started"]
    [ended] = [id_ for kind, id_ in run.effects if kind == "crew_kickoff_completed"]
    assert began == ended
    assert "empty scope stack" not in run.child.log()


# Where CrewAI is not what is leant on

GONE = """
import sys
sys.modules["_crewcast_child.internals"].{names} += ("crewai:Crew.gone_in_this_release",)
"""


@pytest.mark.parametrize("names", ["REVIEWING", "RESUMING"])
def test_a_review_is_waited_for_in_place_where_an_inside_of_crewai_is_gone(passages, names):
    run = passages(
        GONE.format(names=names) + REVIEWED.replace("once('now') or", "").replace('once("now") or', "")
    )
    child = run.host.start(run.folder, journal={})
    for task_id in ("a", "c"):
        paused = child.until("paused")
        assert (paused["task_id"], paused["in_place"]) == (task_id, True)
        child.send({"op": "decision", **approve()})
    assert child.result()[-1]["output"] == "done C"


def test_a_crew_that_asks_is_refused_where_nobody_can_be_asked(passages):
    run = passages(GONE.format(names="ASKING") + REVIEWED)
    run.go()
    assert (run.last["op"], run.last["kind"]) == ("failed", "refused")
    assert run.last["error"] == "human_input=True is not supported yet; it is set on: a, c"


def test_a_run_whose_tasks_are_done_is_refused_where_it_cannot_go_on(passages):
    code = "def build():\n    return crew(*(task(worker(answer(r), role=r), r, callback=lambda output: r == 'b' and once('x')) for r in 'ab'))"
    code = code.replace("callback=lambda output: r == 'b'", "callback=lambda output, r=r: r == 'b'")
    run = passages(code)
    run.go(status=KILLED)
    file = run.folder / "src/newsroom/crew.py"
    file.write_text(file.read_text() + GONE.format(names="RESUMING"))
    run.go()
    assert run.last["kind"] == "refused"
    assert run.last["error"].endswith("has no Crew.gone_in_this_release")
    assert [task["task_id"] for task in run.last["tasks"]] == ["a"]


def test_a_crew_that_lists_a_task_twice_is_not_journalled(passages):
    run = passages("""
def build():
    twice = task(worker(answer("a"), answer("b")), "twice")
    return crew(twice, twice)
""")
    run.go()
    assert run.last["output"] == "b"
    assert run.journal == {}


def test_a_run_that_keeps_no_journal_says_nothing_of_one(passages):
    run = passages("def build():\n    return crew(task(worker(answer('a')), 'a'))", keeps=False)
    lines = run.go()
    assert [line["op"] for line in lines] == ["started", "event", "event", "event", "finished"]
    assert not any("journal" in line for line in lines)
