"""What surrounds the tasks of a crew: its inputs, its callbacks, and what does not begin."""

import pytest

SHAPES = """
from crewai import Crew, Task
"""


@pytest.fixture
def tell(run):
    return lambda code, **fields: run(SHAPES + code, **fields)


# Inputs


def test_a_file_is_named_by_an_input(tell, tmp_path):
    told = tell(
        """
def build():
    return crew(task(agent(answer("about bees")), "a", output_file="out/{topic}.md"))
""",
        inputs={"topic": "bees"},
    )
    assert told.output == "about bees"
    assert (tmp_path / "out/bees.md").read_text() == "about bees"


def test_inputs_of_any_type_are_filled_in(tell):
    told = tell(
        """
def build():
    brief = '{n} {flag} {nothing} {many} {deep} {"title": "..."}'
    return crew(task(agent(lambda: answer(work.description)), "a", description=brief))
def crew(*tasks, make=crew):
    global work
    [work] = tasks
    return make(*tasks)
""",
        inputs={
            "n": 1.5,
            "flag": True,
            "nothing": None,
            "many": [1, "x"],
            "deep": {"a": {}},
            "more": "than asked",
        },
    )
    assert told.output == "1.5 True None [1, 'x'] {'a': {}} " + '{"title": "..."}'


def test_a_name_inside_a_sample_of_json_is_an_input(tell):
    told = tell("""
def build():
    return crew(task(agent(answer("x")), "a", description='Like {"title": {topic}, "list": [{"n": 1}]}'))
""")
    assert (told.failed["kind"], told.error) == ("input", "topic; the crew takes: topic")


def test_inputs_that_are_made_before_the_kickoff(tell):
    told = tell("""
def build():
    made = lambda inputs: {**inputs, "topic": "Bees"}
    someone = agent(answer("x"), role="{topic} Expert")
    return crew(task(someone, "a", description="On {topic}"), before_kickoff_callbacks=[made])
""")
    assert told.story("a") == ["Bees Expert thought I know."]
    assert told.crew["result"]["tasks"][0]["agent"] == "Bees Expert"


@pytest.mark.parametrize(
    ("made", "kind", "error"),
    [
        ("no_such_thing", "crew", "NameError: name 'no_such_thing' is not defined"),
        ("inputs", "input", "Missing required template variable"),
        # It is there, and of a type that CrewAI does not take.
        ("{'topic': object()}", "crew", "Invalid value for key 'topic': Unsupported type object in inputs"),
    ],
)
def test_a_run_that_fails_before_its_first_task_says_why(tell, made, kind, error):
    told = tell(
        f"""
def before(inputs):
    return {made}
def build():
    return crew(task(agent(answer("x")), "a", description="On {{topic}}"), before_kickoff_callbacks=[before])
""",
        inputs={"other": 1},
    )
    assert told.failed["kind"] == kind
    assert error in told.error
    assert (told.tasks, told.steps) == ([], [])


# Callbacks


def test_what_an_agent_does_after_the_last_task_belongs_to_no_task(tell):
    told = tell("""
def after(result):
    return crew(task(agent(answer("polished"), role="Editor"), "edit")).kickoff()
def build():
    return crew(task(agent(answer("raw"), role="A"), "a"), after_kickoff_callbacks=[after])
""")
    assert told.story("a") == ["A thought I know."]
    assert told.story(None) == ["Editor thought I know."]
    assert told.outputs() == {"a": "raw"}
    assert told.output == "polished"


def test_a_crew_that_is_run_again_after_its_end_tells_its_tasks_once(tell):
    told = tell("""
def build():
    def again(result):
        served.after_kickoff_callbacks = []
        return served.kickoff()
    served = crew(task(agent(answer("first"), answer("second"), role="A"), "a"), after_kickoff_callbacks=[again])
    return served
""")
    assert told.ends() == [("a", "completed", "first")]
    assert told.story("a") == ["A thought I know."]
    assert told.output == "second"


@pytest.mark.parametrize("beside", [False, True], ids=["in order", "side by side"])
@pytest.mark.parametrize("place", ["task", "crew"])
def test_a_task_whose_callback_fails_has_failed(tell, place, beside):
    told = tell(f"""
def fail(output):
    raise ValueError("not " + output.raw)
def build():
    of = {{"callback": fail}} if {place == "task"} else {{}}
    tasks = [task(agent(answer("good")), "a", async_execution={beside}, **of), task(agent(answer("x")), "b")]
    return crew(*tasks, **({{}} if of else {{"task_callback": fail}}))
""")
    assert told.ends() == [("a", "error", "not good")]
    assert told.error.startswith("ValueError: not good (src/newsroom/crew.py:")


def test_a_crew_whose_last_callback_fails_has_its_tasks_done(tell):
    told = tell("""
def fail(result):
    raise ValueError("not good")
def build():
    return crew(task(agent(answer("x")), "a"), after_kickoff_callbacks=[fail])
""")
    assert told.ends() == [("a", "completed", "x")]
    assert told.crew["status"] == "error"
    assert told.error.startswith("ValueError: not good")


def test_a_callback_of_a_task_works_within_the_task(tell):
    told = tell(
        """
def ask(output):
    crew(task(agent(answer("fine"), role="Critic"), "review")).kickoff_for_each([{"n": 1}, {"n": 2}])
def build():
    return crew(task(agent(answer("x"), role="A"), "a", callback=ask), task(agent(answer("y"), role="B"), "b"))
""".replace('answer("fine")', 'answer("fine"), answer("fine")')
    )
    assert told.story("a") == ["A thought I know.", "Critic thought I know.", "Critic thought I know."]
    assert told.outputs() == {"a": "x", "b": "y"}


def test_step_callbacks_of_the_project_are_called_all_the_same(tell):
    told = tell('''
@tool("Look Up")
def look_up(word: str) -> str:
    """Look a word up."""
    return word.upper()
def build():
    react = agent(use("Look Up", word="bee"), answer("x"), tools=[look_up], role="A")
    native = agent([call("look_up", word="bee")], "y", tools=[look_up], role="B", native=True)
    return crew(task(react, "a"), task(native, "b"), step_callback=lambda step: print("step", type(step).__name__))
''')
    assert "step AgentAction" in told.log
    assert "step AgentFinish" in told.log
    assert told.results("Look Up") == told.results("look_up") == ["BEE"]


# No agents


def test_a_task_without_an_agent_does_not_load(tell):
    told = tell("""
def build():
    return Crew(agents=[], tasks=[Task(name="a", description="Find bees.", expected_output="E")])
""")
    assert told.failed["kind"] == "load"
    assert "Agent is missing in the task with the following description: Find bees." in told.error


def test_a_task_that_loses_its_agent_before_its_turn_fails_the_run(tell):
    told = tell("""
def build():
    def lose(output):
        last.agent = None
    last = task(agent(answer("x")), "b", description="Find bees.")
    return crew(task(agent(answer("x")), "a", callback=lose), last)
""")
    assert told.ends() == [("a", "completed", "x")]
    assert "No agent available for task: Find bees." in told.error
