"""Which calls of a model are an agent's thoughts, and which serve something else: memory, knowledge, plans, limits."""

import json

import pytest

from tests.crewai.releases import since

MODELS = '''
from crewai import LLM, Agent
from crewai.events.types.llm_events import LLMCallType
from crewai.knowledge.source.string_knowledge_source import StringKnowledgeSource
from crewai.llms.base_llm import llm_call_context
from crewai.utilities.exceptions.context_window_exceeding_exception import LLMContextLengthExceededError
from scripted import ScriptedLLM

@tool("Look Up")
def look_up(word: str) -> str:
    """Look a word up."""
    return word.upper()

class Own(ScriptedLLM):
    """A model of the project's own, which tells CrewAI nothing of its calls."""
    def call(self, messages, *_, **__):
        reply = self._replies.pop(0)
        if isinstance(reply, BaseException):
            raise reply
        return reply

def someone(llm, role="A", **fields):
    return Agent(role=role, goal="know words", backstory="curious", llm=llm, **fields)
'''


@pytest.fixture
def tell(run):
    return lambda code, **fields: run(MODELS + code, **fields)


@pytest.fixture
def tell_stub(tell, base_url):
    """The same with every model and embedder on the offline LLM."""
    return lambda code: tell(code, stub_llm={"base_url": base_url})


def names(told, kind):
    return [line for line in told.lines if line.get("type") == kind]


# Models of the project's own


def test_the_answer_of_a_silent_model_is_the_one_thought(tell):
    told = tell("""
def build():
    return crew(task(someone(Own.saying(answer("quiet"))), "a"))
""")
    assert told.story("a") == ["A thought quiet"]
    assert told.outputs() == {"a": "quiet"}


def test_a_silent_model_with_tools_is_heard_by_its_calls(tell):
    told = tell("""
def build():
    llm = Own.saying(use("Look Up", word="bee"), answer("quiet"))
    return crew(task(someone(llm, tools=[look_up]), "a"))
""")
    assert told.story("a") == ["A tool_call Look Up", "A tool_result BEE"]


def test_a_model_that_does_not_say_whose_its_calls_are_is_heard_as_a_silent_one(tell):
    told = tell("""
class Anonymous(Own):
    def call(self, messages, *_, **__):
        with llm_call_context():
            reply = self._replies.pop(0)
            self._emit_call_started_event(messages=messages)
            self._emit_call_completed_event(response=reply, call_type=LLMCallType.LLM_CALL)
            return reply
def build():
    return crew(task(someone(Anonymous.saying(answer("quiet"))), "a"))
""")
    assert told.story("a") == ["A thought quiet"]


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        ("NotImplementedError('only acall')", "NotImplementedError: only acall"),
        ("ConnectionError('no route')", "ConnectionError: no route"),
    ],
)
def test_a_model_that_fails_fails_the_task_once(tell, reply, error):
    told = tell(f"""
def build():
    return crew(task(someone(Own.saying(*[{reply}] * 9)), "a"))
""")
    message = error.partition(": ")[2]
    assert told.ends() == [("a", "error", message)]
    assert told.story("a") == [f"A thought The task failed: {message}"]
    assert told.error.startswith(f"{error} (src/newsroom/crew.py:")


@pytest.mark.parametrize("error", ["ConnectionError('no route')", "Limited('too many requests')"])
def test_a_model_that_fails_once_is_asked_again(tell, error):
    told = tell(f"""
class Limited(Exception):
    status_code = 429
    headers = {{"retry-after": "0"}}
def build():
    replies = [use("Look Up", word="bee"), {error}, answer("done")]
    return crew(task(agent(*replies, tools=[look_up], role="A"), "a"))
""")
    assert told.story("a") == [
        "A thought I need Look Up.",
        "A tool_call Look Up",
        "A tool_result BEE",
        "A thought I know.",
    ]
    assert told.ends() == [("a", "completed", "done")]


# Streams


@pytest.mark.parametrize("model", ["openai/gpt-4o-mini", "openai/o1"], ids=["native", "react"])
def test_a_streamed_answer_is_one_thought(tell_stub, model):
    told = tell_stub(f"""
def build():
    llm = LLM(model="{model}", stream=True)
    return crew(task(someone(llm, tools=[look_up]), "a", description="Look up the word harbour."))
""")
    thoughts = [step["step"]["content"] for step in told.steps if step["step"]["type"] == "thought"]
    if "o1" in model:
        assert len(thoughts) == 2
        assert all(thought.startswith("I ") and thought.endswith(".") for thought in thoughts)
    else:
        assert thoughts == [told.output]
    assert told.results("look_up") == ["HARBOUR"]


# Memory and knowledge: their own calls name no agent


def test_what_a_memory_asks_the_model_is_no_step(tell_stub):
    """Extraction (before the task's end) and analysis (in threads of its own, while the next task works) are left out."""
    told = tell_stub("""
from crewai.events.event_bus import CrewAIEventsBus
emit = CrewAIEventsBus.emit
def heard(bus, source, event):
    if event.type == "llm_call_completed" and not event.agent_role:
        print("asked by nobody:", str(event.response)[:14])
    elif event.type == "memory_save_completed":
        print("saved")
    return emit(bus, source, event)
CrewAIEventsBus.emit = heard
def build():
    llm = "openai/gpt-4o-mini"
    first, second = someone(llm, "A"), someone(llm, "B")
    return crew(
        task(first, "a", description="Describe the harbour."), task(second, "b", description="Describe the ships."),
        memory=True)
""")
    # The calls were made, and so were memories, in a process forked before lancedb was loaded.
    assert told.log.count('asked by nobody: {"memories":[') == 2
    assert told.log.count('asked by nobody: {"suggested_sc') >= 2
    assert told.log.count("saved") == 2
    for task_id, agent in (("a", "A"), ("b", "B")):
        kinds = [line.split(" ")[:2] for line in told.story(task_id)]
        assert kinds == [[agent, "tool_call"], [agent, "tool_result"], [agent, "thought"]]
    assert told.results("search_memory")[0] == "No relevant memories found."
    assert told.results("search_memory")[1].startswith("Found memories:")
    assert told.story(None) == []
    assert not any("suggested_scope" in json.dumps(step) for step in told.steps)


def test_what_knowledge_asks_the_model_is_no_step(tell_stub):
    told = tell_stub("""
def build():
    facts = StringKnowledgeSource(content="The harbour of Trieste has 12 berths.")
    llm = "openai/gpt-4o-mini"
    return crew(task(someone(llm), "a", description="How many berths has the harbour?"), knowledge_sources=[facts])
""")
    [thought] = told.story("a")
    assert thought == f"A thought {told.output}"


# Plans


def test_the_planner_of_a_crew_thinks_for_no_task(tell):
    told = tell("""
import json
def build():
    plans = [{"task_number": n, "task": "t", "plan": " Slowly."} for n in (1, 2)]
    planner = ScriptedLLM.saying(json.dumps({"list_of_plans_per_task": plans}))
    a, b = agent(answer("A"), role="A"), agent(answer("B"), role="B")
    return crew(task(a), task(b, "b"), planning=True, planning_llm=planner)
""")
    [plan] = told.story(None)
    assert plan.startswith('Task Execution Planner thought {"list_of_plans_per_task"')
    assert told.steps[0]["agent"] == "Task Execution Planner"
    assert told.story("task-1") == ["A thought I know."]
    assert told.story("b") == ["B thought I know."]
    assert told.outputs() == {"task-1": "A", "b": "B"}


def test_a_plan_that_an_agent_writes_as_text_is_one_thought(tell):
    """CrewAI reports the answer of the model, and then the same text as the plan."""
    told = tell("""
def build():
    plan = "1. Look. READY: I am ready to execute the task."
    return crew(task(agent(plan, answer("done"), role="A", reasoning=True), "a"))
""")
    assert told.story("a") == [
        "A thought 1. Look. READY: I am ready to execute the task.",
        "A thought I know.",
    ]


@since("1.11.0", "agents that plan and observe")
def test_each_attempt_at_a_plan_is_one_thought(tell):
    told = tell("""
from crewai import PlanningConfig
def build():
    plans = ["1. Look.", "1. Look well. READY: I am ready to execute the task."]
    worker = agent(*plans, answer("done"), role="A", planning_config=PlanningConfig(max_attempts=3))
    return crew(task(worker, "a"))
""")
    assert told.story("a") == [
        "A thought 1. Look.",
        "A thought 1. Look well. READY: I am ready to execute the task.",
        "A thought I know.",
    ]


@since("1.11.0", "agents that plan and observe")
def test_a_plan_that_a_model_gives_as_arguments_is_a_thought_and_no_tool_call(tell_stub):
    told = tell_stub("""
from crewai import PlanningConfig
def build():
    worker = someone("openai/gpt-4o-mini", tools=[look_up], planning_config=PlanningConfig(max_steps=2))
    return crew(task(worker, "a", description="Look up the word harbour."))
""")
    tools = {step["step"]["tool"] for step in told.steps if step["step"]["type"] == "tool_call"}
    assert tools == {"look_up"}
    [plan] = names(told, "agent_reasoning_completed")
    assert told.story("a")[0] == f"A thought {plan['plan']}"
    assert told.story("a").count(f"A thought {plan['plan']}") == 1
    # Each step of the plan is an agent's turn of its own: its calls, its answer, and what the observer makes of it.
    answers = [line for line in names(told, "llm_call_completed") if line["call_type"] == "llm_call"]
    assert len(answers) == len([line for line in told.story("a") if " thought " in line]) - 1


# Limits


def test_the_answer_that_max_iter_forces_is_told_as_the_output(tell):
    """CrewAI asks for it in nobody's name; it may be the only text of a model that just called tools."""
    told = tell("""
def build():
    react = agent(use("Look Up", word="a"), answer("enough"), tools=[look_up], role="A", max_iter=1)
    native = agent([call("look_up", word="b")], "no more", tools=[look_up], role="B", max_iter=1, native=True)
    return crew(task(react, "a"), task(native, "b"))
""")
    assert told.story("a") == ["A thought I need Look Up.", "A tool_call Look Up", "A tool_result A"]
    assert told.story("b") == ["B tool_call look_up", "B tool_result B"]
    assert told.outputs() == {"a": "enough", "b": "no more"}


def test_max_execution_time_fails_the_task_and_ends_its_calls(tell):
    told = tell('''
import concurrent.futures, threading
given_up, cancel = threading.Event(), concurrent.futures.Future.cancel
def cancel_and_note(future):
    given_up.set()
    return cancel(future)
concurrent.futures.Future.cancel = cancel_and_note
@tool("Wait")
def wait(word: str) -> str:
    """Wait longer than the agent may take: CrewAI waits for it when it has given the agent up."""
    given_up.wait(5)
    return "waited"
def build():
    worker = agent([call("wait", word="a")], "late", native=True, tools=[wait], role="A",
                   max_execution_time=1, max_retry_limit=0)
    return crew(task(worker, "a"), task(agent(answer("x")), "b"))
''')
    [(task_id, status, error)] = told.ends()
    assert (task_id, status) == ("a", "error")
    assert "timed out after 1 seconds" in error
    assert told.error.startswith("TimeoutError: ")


def test_a_conversation_that_grew_too_long_is_summarised_in_silence(tell):
    told = tell("""
class Scripted(ScriptedLLM):
    def call(self, messages, *arguments, **named):
        if "summar" in str(messages[0]):
            print("summarising")
            return ScriptedLLM.saying("<summary>short</summary>").call(messages)
        return super().call(messages, *arguments, **named)
    async def acall(self, messages, *arguments, **named):
        return self.call(messages, *arguments, **named)
def build():
    too_long = LLMContextLengthExceededError("maximum context length is 10")
    llm = Scripted.saying(use("Look Up", word="bee"), too_long, answer("done"))
    return crew(task(someone(llm, tools=[look_up]), "a"))
""")
    assert "summarising" in told.log
    assert told.story("a") == [
        "A thought I need Look Up.",
        "A tool_call Look Up",
        "A tool_result BEE",
        "A thought I know.",
    ]
    assert told.output == "done"


def test_requests_that_are_held_back_are_told_when_they_are_made(tell):
    """With `max_rpm` CrewAI waits for the next minute; below the limit nothing changes."""
    told = tell("""
def build():
    worker = agent(use("Look Up", word="bee"), answer("done"), tools=[look_up], role="A", max_rpm=100)
    return crew(task(worker, "a"), max_rpm=100)
""")
    assert told.story("a")[-1] == "A thought I know."
    assert told.output == "done"
