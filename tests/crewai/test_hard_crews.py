"""Crews of every shape that CrewAI has: what subscribers are told of them is true, in order and once."""

import json

import pytest

from tests.crewai.releases import since

SHAPES = """
from crewai import Crew, Process, Task
from crewai.tasks.conditional_task import ConditionalTask
from pydantic import BaseModel

class Facts(BaseModel):
    n: int

def delegate(name, to):
    return use(name, task="do it", question="why?", context="now", coworker=to)
"""


@pytest.fixture
def tell(run):
    return lambda code, **fields: run(SHAPES + code, **fields)


# Who does the work


def test_a_manager_of_its_own_delegates_in_every_task(tell):
    told = tell("""
def build():
    worker = agent(answer("found"), answer("because"), role="Worker")
    boss = agent(
        delegate("delegate_work_to_coworker", "Worker"), answer("one is done"),
        delegate("ask_question_to_coworker", "Worker"), answer("two is done"), role="Boss")
    one, two = (Task(name=name, description="D", expected_output="E", agent=worker) for name in ("one", "two"))
    return Crew(agents=[worker], tasks=[one, two], process=Process.hierarchical, manager_agent=boss)
""")
    for task_id, tool, said in (
        ("one", "delegate_work_to_coworker", "found"),
        ("two", "ask_question_to_coworker", "because"),
    ):
        assert told.story(task_id) == [
            f"Boss thought I need {tool}.",
            f"Boss tool_call {tool}",
            "Worker thought I know.",
            f"Boss tool_result {said}",
            "Boss thought I know.",
        ]
    assert told.outputs() == {"one": "one is done", "two": "two is done"}
    assert {task["agent"] for task in told.tasks} == {"Boss"}


def test_an_agent_of_a_sequential_crew_delegates(tell):
    told = tell("""
def build():
    helper = agent(answer("helped"), answer("on my own"), role="Helper")
    lead = agent(delegate("delegate_work_to_coworker", "Helper"), answer("led"), role="Lead", allow_delegation=True)
    return crew(task(lead, "lead"), task(helper, "help"))
""")
    assert told.story("lead") == [
        "Lead thought I need delegate_work_to_coworker.",
        "Lead tool_call delegate_work_to_coworker",
        "Helper thought I know.",
        "Lead tool_result helped",
        "Lead thought I know.",
    ]
    assert told.story("help") == ["Helper thought I know."]
    assert told.outputs() == {"lead": "led", "help": "on my own"}


# Tasks side by side


def test_a_task_has_the_tasks_beside_it_as_context(tell):
    told = tell("""
def build():
    one, two = (task(agent(answer(role), role=role), role.lower(), async_execution=True) for role in "AB")
    return crew(one, two, task(agent(answer("C"), role="C"), "c", context=[one, two]))
""")
    assert told.outputs() == {"a": "A", "b": "B", "c": "C"}
    assert told.tasks[-1]["task_id"] == "c"
    assert told.output == "C"


def test_the_last_task_runs_beside_the_end_of_the_crew(tell):
    told = tell("""
def build():
    return crew(task(agent(answer("A")), "a"), task(agent(answer("B")), "b", async_execution=True))
""")
    assert told.ends() == [("a", "completed", "A"), ("b", "completed", "B")]
    assert told.output == "B"


def test_a_task_that_fails_beside_another_fails_the_run_after_it(tell):
    told = tell("""
def fail():
    committed(1)
    raise RuntimeError("down")
def build():
    a, b = agent(fail, role="A", max_retry_limit=0), agent(answer("B"), role="B")
    return crew(
        task(a, "a", async_execution=True),
        task(b, "b", async_execution=True),
        task(agent(answer("C")), "c"),
    )
""")
    ends = [("a", "error", "down"), ("b", "completed", "B")]
    assert sorted(told.ends()) == ends
    assert told.error.startswith("RuntimeError: down")


def test_a_task_that_the_end_of_the_run_cuts_off_is_not_told(tell):
    """It neither failed nor came to an end: the crew event says what happened, without waiting for it."""
    told = tell("""
import threading
b_works = threading.Event()
def fail():
    b_works.wait(30)
    raise RuntimeError("down")
def work():
    b_works.set()
    threading.Event().wait(600)
def build():
    a, b = agent(fail, role="A", max_retry_limit=0), agent(work, role="B")
    return crew(
        task(a, "a", async_execution=True), task(b, "b", async_execution=True), task(agent(answer("C")), "c"))
""")
    assert told.ends() == [("a", "error", "down")]
    assert told.crew["status"] == "error"


@since("1.15.29", "one executor for all agents")
def test_tasks_side_by_side_that_share_an_agent_keep_their_steps(tell):
    """CrewAI has the agent do one thing at a time, fails the other task, and names it in the steps of the first."""
    told = tell("""
def work():
    # The other one's failure.
    committed(1)
    return answer("done")
def build():
    shared = agent(work, role="S", max_retry_limit=0)
    return crew(
        task(shared, "a", async_execution=True), task(shared, "b", async_execution=True),
        task(agent(answer("C")), "c"))
""")
    refused, status, error = told.ends()[0]
    assert (status, "already running" in error) == ("error", True)
    # If it is the first, the run ends before the second has answered.
    works = "b" if refused == "a" else "a"
    assert told.story(works) in ([["S thought I know."]] if works == "a" else [[], ["S thought I know."]])
    assert told.story(refused) == [f"S thought The task failed: {error}"]
    assert told.story(None) == []


def test_a_task_that_is_listed_twice_is_two_tasks(tell):
    told = tell("""
def build():
    twice = task(agent(answer("1"), answer("2"), role="A"), "a")
    return crew(twice, twice)
""")
    assert told.outputs() == {"a": "1", "a-2": "2"}
    assert told.story("a") == told.story("a-2") == ["A thought I know."]


# Tasks that may be left out


def test_a_conditional_task_waits_for_those_beside_it(tell):
    told = tell("""
def build():
    on_a = lambda output: "A" in output.raw
    return crew(
        task(agent(answer("A")), "a", async_execution=True),
        ConditionalTask(name="b", description="d", expected_output="e", agent=agent(answer("B")), condition=on_a),
        task(agent(answer("C")), "c"))
""")
    assert told.ends() == [("a", "completed", "A"), ("b", "completed", "B"), ("c", "completed", "C")]


@pytest.mark.parametrize(("place", "output"), [(1, "C"), (2, "C")], ids=["in between", "last"])
def test_a_conditional_task_that_is_left_out_is_not_told(tell, place, output):
    """CrewAI emits nothing for it, and it did nothing: no events, and no place among the results.

    (CrewOutput has an empty output in its place; told as completed, it would say that work was done.)
    """
    told = tell(f"""
def build():
    tasks = [task(agent(answer("A")), "a"), task(agent(answer("C")), "c")]
    never = ConditionalTask(
        name="b", description="d", expected_output="e", agent=agent(answer("B")), condition=lambda _: False)
    tasks.insert({place}, never)
    return crew(*tasks)
""")
    assert told.ends() == [("a", "completed", "A"), ("c", "completed", "C")]
    assert told.output == output
    assert len(told.lines[0]["tasks"]) == 3


def test_what_a_condition_asks_an_agent_belongs_to_no_task(tell):
    told = tell("""
def build():
    judge = agent(answer("yes"), role="Judge")
    asked = lambda output: "yes" in judge.kickoff("Shall we?").raw
    return crew(
        task(agent(answer("A"), role="A"), "a"),
        ConditionalTask(
            name="b", description="d", expected_output="e", agent=agent(answer("B"), role="B"), condition=asked))
""")
    assert told.story(None) == ["Judge thought I know."]
    assert told.story("a") == ["A thought I know."]
    assert told.story("b") == ["B thought I know."]


# Outputs


@pytest.mark.parametrize(
    "guardrails", ["guardrail=check", "guardrails=[check, lambda output: (True, output.raw)]"]
)
def test_an_output_that_a_guardrail_sends_back_is_not_told(tell, guardrails):
    told = tell(f"""
def check(output):
    return (True, output.raw) if output.raw == "good" else (False, "do better")
def build():
    return crew(task(agent(answer("bad"), answer("good"), role="A"), "a", {guardrails}))
""")
    assert told.ends() == [("a", "completed", "good")]
    assert told.story("a") == ["A thought I know.", "A thought I know."]
    assert told.output == "good"


def test_an_output_that_a_guardrail_changes_is_told_changed(tell):
    told = tell("""
def build():
    return crew(task(agent(answer("raw")), "a", guardrail=lambda output: (True, "changed")))
""")
    assert told.ends() == [("a", "completed", "changed")]
    assert told.output == "changed"


def test_a_guardrail_that_refuses_for_good_fails_the_task_and_the_run(tell):
    told = tell("""
def build():
    someone = agent(*[answer("bad")] * 3)
    never = lambda output: (False, "do better")
    return crew(task(someone, "a", guardrail=never, guardrail_max_retries=2), task(someone, "b"))
""")
    [(task_id, status, error)] = told.ends()
    assert (task_id, status) == ("a", "error")
    assert "do better" in error
    assert error in told.error
    assert "result" not in told.crew


@since("1.15.29", "one executor for all agents")
def test_a_guardrail_in_words_is_an_agent_at_work_in_the_task(tell):
    told = tell("""
import json
def verdict(valid):
    return json.dumps({"valid": valid, "feedback": None if valid else "too short"})
def build():
    someone = agent(answer("bad"), verdict(False), answer("good"), verdict(True), role="A")
    return crew(task(someone, "a", guardrail="must be long"))
""")
    assert told.story("a") == [
        "A thought I know.",
        'Guardrail Agent thought {"valid": false, "feedback": "too short"}',
        "A thought I know.",
        'Guardrail Agent thought {"valid": true, "feedback": null}',
    ]
    assert told.ends() == [("a", "completed", "good")]


@pytest.mark.parametrize("native", [False, True], ids=["react", "native"])
@pytest.mark.parametrize("field", ["output_pydantic", "output_json", "response_model"])
def test_structured_outputs_are_told_as_their_json(tell, native, field):
    told = tell(f"""
def build():
    said = '{{"n": 1}}' if {native} else answer('{{"n": 1}}')
    return crew(task(agent(said, native={native}), "a", {field}=Facts))
""")
    assert json.loads(told.outputs()["a"]) == {"n": 1}
    assert told.output == told.outputs()["a"]


def test_what_a_converter_asks_the_model_is_no_step(tell):
    """The output is what the agent wrote; what CrewAI converts it to stays with the crew's own code."""
    told = tell("""
def build():
    return crew(task(agent(answer("one fact"), '{"n": 1}', role="A"), "a", output_pydantic=Facts))
""")
    assert told.story("a") == ["A thought I know."]
    assert told.output == "one fact"


# Many


def test_thirty_tasks_are_told_in_their_order(tell):
    told = tell("""
def build():
    someone = agent(*[answer(str(n)) for n in range(30)])
    return crew(*(task(someone, f"t{n}") for n in range(30)))
""")
    assert told.ends() == [(f"t{n}", "completed", str(n)) for n in range(30)]
