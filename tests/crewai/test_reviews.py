"""A person reviews a task in another process than the one that worked on it, and nobody can tell from the result."""

import pytest

from tests.crewai.passages import Review, approve, reject
from tests.crewai.releases import since

pytestmark = since("1.15.29", "the executor that a review goes through")

PLAIN = """
def build():
    writer = worker(answer("a draft"), answer("published"), role="Writer")
    return crew(task(writer, "draft", human_input=True), task(writer, "publish"))
"""


@pytest.fixture
def review(lab_host, tmp_path):
    yield Review(lab_host, tmp_path)
    lab_host.hang_up()


def kinds(lines):
    return [line.get("type", line["op"]) for line in lines]


def test_an_approved_task_goes_on_without_a_call(review):
    run = review(PLAIN, approve())
    before, after = run.processes
    paused = before[-1]
    assert (paused["op"], paused["task_id"], paused["index"]) == ("paused", "draft", 1)
    assert (paused["agent"], paused["output"]) == ("Writer", "a draft")
    assert "in_place" not in paused
    assert kinds(before) == ["started", "journal", "task_started", "llm_call_completed", "paused"]
    assert kinds(after) == [
        "started",
        "task_completed",
        "task_started",
        "llm_call_completed",
        "task_completed",
        "finished",
    ]
    assert len(run.calls) == 2
    assert after[-1]["output"] == "published"
    assert after[-1]["usage"]["total_tokens"] == 20
    assert [task["task_id"] for task in after[-1]["tasks"]] == ["draft", "publish"]


def test_a_rejected_task_goes_on_with_its_conversation(review):
    run = review(
        """
def build():
    writer = worker(use("Look Up", word="bees"), answer("a draft"), answer("a better draft"), answer("the best draft"),
                    role="Writer", tools=[look_up])
    return crew(task(writer, "draft", human_input=True))
""",
        reject("too short"),
        reject("still too short"),
        approve(),
    )
    assert [lines[-1]["output"] for lines in run.processes] == [
        "a draft",
        "a better draft",
        "the best draft",
        "the best draft",
    ]
    # The second conversation holds the turn with the tool, and both remarks are in the third.
    assert "BEES" in run.prompts("Writer")[2]
    assert "too short" in run.prompts("Writer")[2]
    assert "still too short" in run.prompts("Writer")[3]
    assert run.effects == [["look up", "bees"]]
    assert len({lines[-1]["uuid"] for lines in run.processes[:3]}) == 1


def test_a_task_is_as_long_as_the_work_on_it_in_all_processes(review):
    run = review.apart(
        """
def build():
    return crew(task(worker(lambda: time.sleep(0.3) or answer("a draft")), "draft", human_input=True))
""",
        approve(),
    )
    [completed] = [line for line in run.events if line["type"] == "task_completed"]
    before = run.processes[0][-1]["journal"]["pending"]["seconds"]
    assert 0.3 <= before < completed["execution_time"]
    assert completed["execution_time"] - before <= run.last["seconds"]


SHAPES = {
    "a native tool is not called again": """
def build():
    writer = worker([call("look_up", word="bees")], "a draft", role="Writer", native=True, tools=[look_up],
                    step_callback=lambda step: note("step", type(step).__name__))
    return crew(task(writer, "draft", human_input=True, callback=lambda output: note("callback", output.raw)),
                task_callback=lambda output: note("task callback", output.raw))
""",
    "a guardrail sees what was approved": """
def check(output):
    note("guardrail", output.raw)
    return True, output.raw + "!"
def build():
    return crew(task(worker(answer("a draft")), "draft", human_input=True, guardrail=check), task(worker(answer("b"), role="B"), "b"))
""",
    "a file is written after the approval": """
def build():
    return crew(task(worker(answer("a draft")), "draft", human_input=True, output_file="out/draft.txt",
                     callback=lambda output: note("there", os.path.exists("out/draft.txt"))))
""",
    "a model is made of the answer": """
class Facts(BaseModel):
    n: int
def build():
    return crew(
        task(worker(answer('{"n": 1}')), "draft", human_input=True, output_pydantic=Facts,
             callback=lambda output: note(type(output.pydantic).__name__)),
        task(worker(answer('{"n": 2}'), role="B"), "b", human_input=True, output_json=Facts,
             callback=lambda output: note(output.json_dict)),
        task(worker(answer("c"), role="C"), "c"))
""",
    "an agent has a time limit": """
def build():
    return crew(task(worker(answer("a draft"), max_execution_time=60), "draft", human_input=True), task(worker(answer("b"), role="B"), "b"))
""",
    "tasks have no names": """
def build():
    writer = worker(*map(answer, "abc"))
    return crew(task(writer), task(writer, human_input=True), task(writer, human_input=True))
""",
    "an async task comes after": """
def build():
    return crew(task(worker(answer("a"), role="A"), "a"), task(worker(answer("b"), role="B"), "b", human_input=True),
                task(worker(answer("c"), role="C"), "c", async_execution=True))
""",
    "an async task comes before": """
def build():
    return crew(task(worker(answer("a"), role="A"), "a", async_execution=True), task(worker(answer("b"), role="B"), "b", human_input=True))
""",
    "an async task asks": """
def build():
    return crew(task(worker(answer("a"), role="A"), "a"),
                task(worker(answer("b"), role="B"), "b", human_input=True, async_execution=True),
                task(worker(answer("c"), role="C"), "c"))
""",
    "several async tasks ask": """
def build():
    a, b, c, d = (worker(answer(role), role=role) for role in "ABCD")
    asking = {"human_input": True, "async_execution": True}
    return crew(task(a, "a"), task(b, "b", **asking), task(c, "c"), task(d, "d", **asking))
""",
    "a skipped task is before it": """
def build():
    a, b, d = (worker(answer(role), role=role) for role in "ABD")
    one = task(a, "one", callback=lambda output: note("one"))
    skipped = ConditionalTask(name="skipped", description="D", expected_output="E", agent=b, condition=lambda output: bool(note("asked")))
    two = task(b, "two", callback=lambda output: note("two"))
    return crew(one, skipped, two, task(d, "three", human_input=True, context=[one, skipped, two]))
""",
    "a skipped task is just before it": """
def build():
    a, b, d = (worker(answer(role), role=role) for role in "ABD")
    one = task(a, "one", callback=lambda output: note("one"))
    skipped = ConditionalTask(name="skipped", description="D", expected_output="E", agent=b, condition=lambda output: bool(note("asked")))
    return crew(one, skipped, task(d, "three", human_input=True))
""",
    "a conditional task asks": """
def build():
    a, b = (worker(answer(role), role=role) for role in "AB")
    asking = ConditionalTask(name="asking", description="D", expected_output="E", agent=b, human_input=True,
                             condition=lambda output: note("asked") is None)
    return crew(task(a, "one"), asking)
""",
    "a callback before the kickoff changes the inputs": """
def grow(inputs):
    note("before", inputs)
    return {**inputs, "topic": inputs.get("topic", "") + "!"}
def build():
    return crew(task(worker(answer("a draft")), "draft", description="Find {topic}.", human_input=True),
                task(worker(answer("b"), role="B"), "b", description="Write on {topic}."),
                before_kickoff_callbacks=[grow], after_kickoff_callbacks=[lambda output: note("after") or output])
""",
    "a tool may be used once": """
@tool("Once", max_usage_count=1)
def limited(word: str) -> str:
    "Look a word up once."
    note("limited", word)
    return word
def build():
    writer = worker([call("once", word="a")], "a draft", native=True, tools=[limited])
    return crew(task(writer, "draft", human_input=True))
""",
    "a tool's result is the answer": """
@tool("Final", result_as_answer=True)
def final(word: str) -> str:
    "Say it."
    note("final", word)
    return "final " + word
def build():
    return crew(task(worker([call("final", word="a")], native=True, tools=[final]), "draft", human_input=True),
                task(worker(answer("b"), role="B"), "b"))
""",
    "a tool fails": """
@tool("Fail")
def fail(word: str) -> str:
    "Fail."
    raise ValueError("no " + word)
def build():
    return crew(task(worker([call("fail", word="a")], "a draft", native=True, tools=[fail]), "draft", human_input=True,
                     callback=lambda output: note([failure.tool_name for failure in output.tool_failures])))
""",
    "a manager delegates in it": """
def build():
    helper = worker(answer("helped"), role="Helper")
    boss = worker(use("delegate_work_to_coworker", task="do it", context="now", coworker="Helper"), answer("done"), answer("two"),
                  role="Boss")
    return Crew(agents=[helper], process=Process.hierarchical, manager_agent=boss,
                tasks=[Task(name=name, description="D", expected_output="E", human_input=name == "one") for name in ("one", "two")])
""",
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_crew_is_approved_as_at_a_terminal(review, shape):
    asks = 2 if shape == "several async tasks ask" else SHAPES[shape].count("human_input=")
    review(SHAPES[shape], *[approve()] * asks, inputs={"topic": "bees"})


def test_a_guardrail_that_sends_the_agent_back_asks_the_person_again(review):
    run = review(
        """
def check(output):
    note("guardrail", output.raw)
    return (True, output.raw) if "good" in output.raw else (False, "not good")
def build():
    writer = worker(answer("bad"), answer("good"), answer("b"))
    return crew(task(writer, "draft", human_input=True, guardrail=check), task(writer, "b"))
""",
        approve(),
        approve(),
    )
    assert run.effects == [["guardrail", "bad"], ["guardrail", "good"]]
    assert [lines[-1].get("output") for lines in run.processes] == ["bad", "good", "b"]


def test_a_guardrail_has_its_retries_once_over_all_processes(review):
    run = review.apart(
        """
def check(output):
    note("guardrail", output.raw)
    return False, "not good"
def build():
    return crew(task(worker(*[answer("bad")] * 9), "draft", human_input=True, guardrail=check, guardrail_max_retries=2))
""",
        approve(),
        approve(),
        approve(),
    )
    # The answer and two more; the message of CrewAI counts the retries of the last process.
    assert len(run.calls) == len(run.effects) == 3
    assert (run.last["op"], run.last["kind"]) == ("failed", "crew")
    assert "Task failed guardrail validation" in run.last["error"]


def test_a_tool_that_may_be_used_once_is_used_up_in_the_next_process(review):
    run = review(
        """
@tool("Once", max_usage_count=1)
def limited(word: str) -> str:
    "Look a word up once."
    note("limited", word)
    return word
def build():
    writer = worker([call("once", word="a")], "a draft", [call("once", "call_2", word="b")], "another", native=True, tools=[limited])
    return crew(task(writer, "draft", human_input=True))
""",
        reject("again"),
        approve(),
    )
    assert run.effects == [["limited", "a"]]


def test_a_tool_whose_result_is_the_answer_has_the_last_word_as_at_a_terminal(review):
    run = review(
        """
@tool("Final", result_as_answer=True)
def final(word: str) -> str:
    "Say it."
    return "final " + word
def build():
    return crew(task(worker(use("Final", word="a"), answer("something else"), tools=[final]), "draft", human_input=True))
""",
        reject("something else"),
        approve(),
    )
    # CrewAI looks at what the tools of a task have said after the person has spoken.
    assert run.last["output"] == "final a"


def test_an_agent_that_plans_does_not_plan_again(review):
    run = review(
        """
from crewai import PlanningConfig
def build():
    writer = worker("1. Look. READY: I am ready to execute the task.", answer("a draft"), answer("a better one"),
                    planning_config=PlanningConfig(max_attempts=1))
    return crew(task(writer, "draft", human_input=True))
""",
        reject("longer"),
        approve(),
    )
    assert len(run.calls) == 3


def test_a_crew_that_plans_does_not_plan_again(review):
    run = review(
        """
from crewai.utilities.planning_handler import PlannerTaskPydanticOutput, PlanPerTask
def plan():
    note("planned")
    return PlannerTaskPydanticOutput(list_of_plans_per_task=[
        PlanPerTask(task_number=n, task="t", plan=" Plan " + str(n) + ".") for n in (1, 2)]).model_dump_json()
def build():
    return crew(task(worker(answer("a draft")), "draft", human_input=True), task(worker(answer("b"), role="B"), "b"),
                planning=True, planning_llm=llm("planner", plan, plan))
""",
        approve(),
    )
    assert run.effects == [["planned"]]
    assert "Plan 2." in run.prompts("B")[0]


def test_several_people_are_asked_in_turn(review):
    run = review(
        """
def build():
    return crew(*(task(worker(answer(role), answer(role * 2), role=role), role.lower(), human_input=True) for role in "ABC"))
""",
        reject("longer"),
        approve(),
        approve(),
        reject("longer"),
        approve(),
    )
    assert [(lines[-1].get("index"), lines[-1]["output"]) for lines in run.processes] == [
        (1, "A"),
        (1, "AA"),
        (2, "B"),
        (3, "C"),
        (3, "CC"),
        (None, "CC"),
    ]


def test_a_crew_that_is_asynchronous_inside_is_reviewed_too(review):
    run = review(
        """
import asyncio
class Loop(Crew):
    def kickoff(self, inputs=None, **named):
        return asyncio.run(self.akickoff(inputs))
def build():
    a, b = worker(answer("a"), answer("aa"), role="A"), worker(answer("b"), role="B")
    tasks = [task(a, "a", human_input=True), task(b, "b")]
    return Loop(agents=[a, b], tasks=tasks)
""",
        reject("longer"),
        approve(),
    )
    assert [lines[-1]["output"] for lines in run.processes] == ["a", "aa", "b"]


def test_a_manager_is_rejected_and_delegates_no_second_time(review):
    run = review(
        """
def build():
    helper = worker(answer("helped"), role="Helper")
    boss = worker(use("delegate_work_to_coworker", task="do it", context="now", coworker="Helper"), answer("done"), answer("better"),
                  role="Boss")
    return Crew(agents=[helper], process=Process.hierarchical, manager_agent=boss,
                tasks=[Task(name="one", description="D", expected_output="E", human_input=True, agent=helper)])
""",
        reject("better"),
        approve(),
    )
    assert len(run.prompts("Helper")) == 1


def test_an_answer_that_is_a_model_stays_one(review):
    run = review(
        """
class Facts(BaseModel):
    n: int
def build():
    return crew(task(worker(Facts(n=1).model_dump_json(), Facts(n=2).model_dump_json(), native=True), "draft", human_input=True,
                     response_model=Facts, output_pydantic=Facts, callback=lambda output: note(repr(output.pydantic))))
""",
        reject("more"),
        approve(),
    )
    assert run.effects == [["Facts(n=2)"]]


@pytest.mark.parametrize("fields", [{}, {"stream": "True"}])
def test_a_model_of_a_provider_goes_on_with_its_conversation(review, stub_llm, fields):
    """CrewAI's own client, native tools, a plain answer and one in chunks."""
    run = review(
        """
from crewai import LLM
def build():
    writer = Agent(role="Writer", goal="g", backstory="b", tools=[look_up], llm=LLM("openai/gpt-4o-mini", **FIELDS))
    return crew(task(writer, "draft", human_input=True), task(writer, "publish"))
""".replace("**FIELDS", ", ".join(f"{name}={value}" for name, value in fields.items())),
        reject("longer"),
        approve(),
        stub_llm=stub_llm,
    )
    assert run.last["usage"]["successful_requests"] >= 3
    assert "look up" in str(run.effects)


def test_a_crew_in_a_tool_cannot_ask(review):
    run = review.apart("""
@tool("Run")
def run_crew() -> str:
    "Run."
    return crew(task(worker(answer("x"), role="X"), "inner", human_input=True)).kickoff().raw
def build():
    return crew(task(worker(use("Run"), answer("a"), tools=[run_crew]), "a"))
""")
    assert run.last["kind"] == "refused"
    assert run.last["error"] == "human_input=True is not supported yet; it is set on: inner"
    assert run.prompts("X") == []


# Comments

COMMENTED = """
def build():
    a, b, c, d, e = (worker(answer("done " + role), role=role) for role in "ABCDE")
    first = task(a, "first", human_input=True)
    other = task(b, "other", context=[])
    later = task(c, "later")
    return crew(first, other, later, task(d, "near", context=[first]), task(e, "far", context=[later]))
"""


def test_a_comment_reaches_the_tasks_that_see_the_output(review):
    run = review.apart(COMMENTED, approve("Mind the bees."))
    said = "Human feedback on 'first' (approved): Mind the bees."
    told = {who: sum(said in prompt for prompt in run.prompts(who)) for who in "ABCDE"}
    assert told == {"A": 0, "B": 0, "C": 1, "D": 1, "E": 0}
    assert run.last["tasks"][0]["output"] == "done A"


def test_a_comment_is_kept_to_the_task_where_that_is_asked(review):
    run = review.apart(COMMENTED, approve("Mind the bees.", pass_feedback=False))
    assert "Mind the bees." not in str(run.calls)
    assert not any(name.startswith("comment:") for name in run.journal)
