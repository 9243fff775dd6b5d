"""Tools that do what they like: each call that a model makes is told, and has exactly one result."""

import os
import signal

import pytest

from tests.crewai.releases import since
from tests.crewai.told import Told

TOOLS = '''
import asyncio, contextvars, os, threading
from crewai.hooks import before_tool_call
from crewai.tools import BaseTool

@tool("Look Up")
def look_up(word: str) -> str:
    """Look a word up."""
    return word.upper()

@tool("Once", max_usage_count=1)
def once(word: str) -> str:
    """Look a word up, but once."""
    return word.upper()

@tool("Direct", result_as_answer=True)
def direct(word: str) -> str:
    """The answer itself."""
    return "direct " + word

class Both(BaseTool):
    name: str = "Both"
    description: str = "It can be called and awaited."
    def _run(self, word: str) -> str:
        return "called " + word
    async def _arun(self, word: str) -> str:
        await asyncio.sleep(0)
        return "awaited " + word

class Awaited(BaseTool):
    name: str = "Awaited"
    description: str = "Its _run is a coroutine."
    async def _run(self, word: str) -> str:
        await asyncio.sleep(0)
        return "awaited " + word
'''


@pytest.fixture
def tell(run):
    return lambda code, **fields: run(TOOLS + code, **fields)


# What a tool is


def test_what_a_tool_prints_goes_to_the_log(tell):
    told = tell('''
@tool("Print")
def printing(word: str) -> str:
    """Print."""
    print("printed by a tool")
    return word
def build():
    return crew(task(agent(use("Print", word="bee"), answer("x"), tools=[printing], role="A"), "a"))
''')
    assert "printed by a tool" in told.log
    assert told.results("Print") == ["bee"]
    assert "printed" not in str(told.lines)


@pytest.mark.parametrize(("name", "said"), [("Both", "called bee"), ("Awaited", "awaited bee")])
def test_a_tool_may_be_a_coroutine(tell, name, said):
    told = tell(f"""
def build():
    return crew(task(agent(use("{name}", word="bee"), answer("x"), tools=[Both(), Awaited()], role="A"), "a"))
""")
    assert told.results(name) == [said]


def test_a_result_that_is_the_answer(tell):
    told = tell("""
def build():
    return crew(task(agent([call("direct", word="bee")], native=True, tools=[direct], role="A"), "a"))
""")
    assert told.story("a") == ["A tool_call direct", "A tool_result direct bee"]
    assert told.output == "direct bee"


@pytest.mark.parametrize("native", [False, True], ids=["react", "native"])
def test_a_result_from_the_cache_is_told_as_a_result(tell, native):
    told = tell(f'''
@tool("Other")
def other(word: str) -> str:
    """Another."""
    return "o"
calls = []
@tool("Count")
def count(word: str) -> str:
    """Count the calls."""
    calls.append(word)
    return str(len(calls))
def build():
    step = (lambda name, **words: [call(name.lower(), **words)]) if {native} else use
    replies = [step("Count", word="a"), step("Other", word="b"), step("Count", word="a")]
    replies.append("x" if {native} else answer("x"))
    return crew(task(agent(*replies, native={native}, tools=[count, other], role="A"), "a"), cache=True)
''')
    first, again = told.results("count" if native else "Count")
    assert first == "1"
    assert again.startswith("1")


# Calls that do not run


@pytest.mark.parametrize("native", [False, True], ids=["react", "native"])
def test_a_call_over_the_limit_of_a_tool_has_its_refusal_as_result(tell, native):
    told = tell(f"""
def build():
    step = (lambda name, **words: [call(name.lower(), **words)]) if {native} else use
    replies = [step("Once", word="a"), step("Once", word="b"), "x" if {native} else answer("x")]
    return crew(task(agent(*replies, native={native}, tools=[once], role="A"), "a"))
""")
    first, refused = told.results("once" if native else "Once")
    assert first == "A"
    assert "usage limit of 1" in refused


@since("1.15.9", "failures of tools as events")
def test_arguments_that_are_no_json_are_told_as_the_model_wrote_them(tell):
    told = tell("""
def build():
    bad = {"id": "1", "type": "function", "function": {"name": "look_up", "arguments": "{not json"}}
    return crew(task(agent([bad], [bad], "x", native=True, tools=[look_up], role="A"), "a"))
""")
    assert [line.partition("JSON")[0] for line in told.story("a")] == [
        *["A tool_call look_up", "A tool_result Error: Failed to parse tool arguments as "] * 2,
        "A thought x",
    ]
    inputs = [step["step"]["input"] for step in told.steps if "input" in step["step"]]
    assert inputs == [{"input": "{not json"}] * 4


@pytest.mark.parametrize(
    ("left", "said"),
    [("SystemExit(3)", "SystemExit: 3"), ("KeyboardInterrupt", "KeyboardInterrupt")],
    ids=["exit", "interrupt"],
)
def test_a_react_tool_that_leaves_the_run_has_not_returned_none(tell, left, said):
    told = tell(f'''
@tool("Leave")
def leave(word: str) -> str:
    """Leave."""
    raise {left}
def build():
    return crew(task(agent(use("Leave", word="a"), tools=[leave], role="A"), "a"))
''')
    assert told.results("Leave") == [f"the tool was left by {said}"]
    assert told.error.startswith(said)
    assert told.tasks == []


def test_a_tool_that_returns_nothing_has_said_none(tell):
    told = tell('''
@tool("Nothing")
def nothing(word: str) -> None:
    """Nothing."""
def build():
    react = agent(use("Nothing", word="a"), answer("x"), tools=[nothing], role="A")
    native = agent([call("nothing", word="a")], "y", tools=[nothing], role="B", native=True)
    return crew(task(react, "a"), task(native, "b"))
''')
    assert told.results("Nothing") == told.results("nothing") == ["None"]


@since("1.15.9", "failures of tools as events")
def test_calls_side_by_side_that_run_or_not_have_a_result_each(tell):
    told = tell("""
def build():
    bad = {"id": "1", "type": "function", "function": {"name": "look_up", "arguments": "{not json"}}
    calls = [bad, call("look_up", "2", word="bee"), call("nowhere", "3"), call("look_up", "4", wrong="x")]
    return crew(task(agent(calls, "x", native=True, tools=[look_up], role="A"), "a"))
""")
    assert len(told.results("look_up")) == 3
    assert "BEE" in told.results("look_up")
    assert told.results("nowhere") == ["Tool not found"]


def test_a_react_call_that_crewai_answers_itself_is_told(tell):
    """It runs no tool for the same call twice in a row, and emits no tool event."""
    told = tell("""
def build():
    again = use("Look Up", word="bee")
    return crew(task(agent(again, again, answer("x"), tools=[look_up], role="A"), "a"))
""")
    assert told.story("a")[:3] == ["A thought I need Look Up.", "A tool_call Look Up", "A tool_result BEE"]
    assert told.story("a")[3:5] == ["A thought I need Look Up.", "A tool_call Look Up"]
    assert "same input" in told.story("a")[5]
    assert told.story("a")[6:] == ["A thought I know."]
    assert told.steps[-2]["step"]["type"] == "observation"


@pytest.mark.parametrize("native", [False, True], ids=["react", "native"])
def test_a_call_that_a_hook_forbids_is_told_with_the_refusal(tell, native):
    told = tell(f"""
@before_tool_call
def forbid(context):
    return False
def build():
    replies = [[call("look_up", word="bee")], "x"] if {native} else [use("Look Up", word="bee"), answer("x")]
    return crew(task(agent(*replies, native={native}, tools=[look_up], role="A"), "a"))
""")
    [refused] = told.results("look_up" if native else "Look Up")
    assert refused.startswith("Tool execution blocked by hook.")


# What a tool starts


def test_a_slow_tool_does_not_hold_back_what_goes_on_beside_it(start, tmp_path):
    child = start(
        TOOLS
        + '''
@tool("Slow")
def slow(word: str) -> str:
    """Slow, until the other task is known to be done."""
    for _ in range(6000):
        if os.path.exists("done"):
            return "at last"
        threading.Event().wait(0.005)
def build():
    one = agent(use("Slow", word="a"), answer("1"), tools=[slow], role="one")
    two = agent(use("Look Up", word="b"), answer("2"), tools=[look_up], role="two")
    return crew(
        task(one, "one", async_execution=True), task(two, "two", async_execution=True),
        task(agent(answer("3")), "three"))
'''
    )
    lines = []
    while not lines or lines[-1].get("type") != "task_completed":
        lines.append(child.next())
    assert lines[-1]["task_id"] == "two"
    child.acknowledge(lines[-1])
    (tmp_path / "done").touch()
    told = Told(child.run_id, lines + child.result())
    assert told.outputs() == {"two": "2", "one": "1", "three": "3"}
    assert told.results("Slow") == ["at last"]


@pytest.mark.parametrize("context", ["inherited", "none"])
def test_an_agent_in_a_thread_of_a_tool_works_for_the_task(tell, context):
    told = tell(f'''
@tool("Ask")
def ask(word: str) -> str:
    """Ask an agent, in a thread."""
    found = []
    def work():
        found.append(agent(answer("inner"), role="Inner").kickoff("hello").raw)
    target = work if "{context}" == "none" else lambda: place.run(work)
    place = contextvars.copy_context()
    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
    return found[0]
def build():
    return crew(task(agent(use("Ask", word="x"), answer("one"), tools=[ask], role="A"), "one"))
''')
    assert told.story("one") == [
        "A thought I need Ask.",
        "A tool_call Ask",
        "Inner thought I know.",
        "A tool_result inner",
        "A thought I know.",
    ]


@pytest.mark.parametrize("context", ["inherited", "none"])
def test_what_a_tool_left_behind_does_during_the_next_task_belongs_to_no_task(tell, context):
    told = tell(f'''
go, done = threading.Event(), threading.Event()
@tool("Spawn")
def spawn(word: str) -> str:
    """Leave a thread behind."""
    def late():
        assert go.wait(30)
        agent(use("Look Up", word="bee"), answer("late"), tools=[look_up], role="Late").kickoff("hello")
        done.set()
    target = late if "{context}" == "none" else lambda: place.run(late)
    place = contextvars.copy_context()
    threading.Thread(target=target, daemon=True).start()
    return "spawned"
def build():
    def second():
        go.set()
        assert done.wait(30)
        return answer("two")
    first = agent(use("Spawn", word="x"), answer("one"), tools=[spawn], role="A")
    return crew(task(first, "one"), task(agent(second, role="B"), "two"))
''')
    assert told.story("one")[-2:] == ["A tool_result spawned", "A thought I know."]
    assert told.story("two") == ["B thought I know."]
    assert told.story(None) == [
        "Late thought I need Look Up.",
        "Late tool_call Look Up",
        "Late tool_result BEE",
        "Late thought I know.",
    ]


def test_a_thread_that_outlives_the_crew_says_nothing_after_its_end(start, tell):
    """Its last call gets its result from the end of the run."""
    told = tell('''
working = threading.Event()
@tool("Forever")
def forever(word: str) -> str:
    """Never ends."""
    working.set()
    threading.Event().wait()
@tool("Spawn")
def spawn(word: str) -> str:
    """Leave a thread behind that no one waits for, and one that Python would wait for."""
    def late():
        agent([call("forever", word="x")], "y", native=True, tools=[forever], role="Late").kickoff("hello")
    threading.Thread(target=late, daemon=True).start()
    threading.Thread(target=threading.Event().wait).start()
    assert working.wait(30)
    return "spawned"
def build():
    first = agent(use("Spawn", word="x"), answer("one"), tools=[spawn], role="A")
    return crew(task(first, "one"), task(agent(answer("two"), role="B"), "two"))
''')
    assert told.results("forever") == ["the task ended before the tool did"]
    assert told.outputs() == {"one": "one", "two": "two"}


def test_no_step_of_a_busy_thread_slips_in_behind_the_end_of_its_task(tell):
    told = tell('''
from crewai.events import crewai_event_bus
from crewai.events.types.llm_events import LLMCallCompletedEvent, LLMCallType
def thought():
    return LLMCallCompletedEvent(agent_role="Busy", call_id="1", response="hm", call_type=LLMCallType.LLM_CALL)
@tool("Spawn")
def spawn(word: str) -> str:
    """Leave busy threads behind."""
    busy = threading.Semaphore(0)
    def late():
        while True:
            crewai_event_bus.emit(None, thought())
            busy.release()
    for _ in range(4):
        threading.Thread(target=late, daemon=True).start()
    for _ in range(20):
        assert busy.acquire(timeout=30)
    return "spawned"
def build():
    return crew(*(
        task(agent(use("Spawn", word=str(n)), answer("done"), tools=[spawn], role="A"), f"t{n}") for n in range(3)))
''')
    assert told.outputs() == {"t0": "done", "t1": "done", "t2": "done"}
    assert all("Busy thought hm" in told.story(task_id) for task_id in ("t0", "t1", "t2", None))


def test_a_call_of_no_task_ends_with_the_run(tell):
    told = tell('''
working = threading.Event()
@tool("Forever")
def forever(word: str) -> str:
    """Never ends."""
    working.set()
    threading.Event().wait()
def build():
    def after(result):
        late = agent([call("forever", word="x")], "y", native=True, tools=[forever], role="Late")
        threading.Thread(target=late.kickoff, args=("hello",), daemon=True).start()
        assert working.wait(30)
        return result
    return crew(task(agent(answer("x"), role="A"), "a"), after_kickoff_callbacks=[after])
''')
    assert told.story(None) == [
        "Late tool_call forever",
        "Late tool_result the run ended before the tool did",
    ]


def test_a_model_that_a_tool_asks_itself_is_the_tools_own_affair(tell):
    told = tell('''
from scripted import ScriptedLLM
@tool("Translate")
def translate(word: str) -> str:
    """Ask a model."""
    return ScriptedLLM.saying("abeille").call("What is bee in French?")
def build():
    return crew(task(agent(use("Translate", word="bee"), answer("x"), tools=[translate], role="A"), "a"))
''')
    assert told.story("a") == [
        "A thought I need Translate.",
        "A tool_call Translate",
        "A tool_result abeille",
        "A thought I know.",
    ]


def test_crews_for_each_of_many_inputs_inside_a_tool(tell):
    told = tell('''
@tool("Each")
def each(word: str) -> str:
    """A crew for each of two."""
    inner = crew(task(agent(answer("i1"), answer("i2"), role="Inner"), "outer", description="On {n}"))
    return " ".join(output.raw for output in inner.kickoff_for_each([{"n": 1}, {"n": 2}]))
def build():
    return crew(task(agent(use("Each", word="a"), answer("x"), tools=[each], role="A"), "outer"))
''')
    assert told.story("outer") == [
        "A thought I need Each.",
        "A tool_call Each",
        "Inner thought I know.",
        "Inner thought I know.",
        "A tool_result i1 i2",
        "A thought I know.",
    ]
    assert told.outputs() == {"outer": "x"}


def test_a_process_that_a_tool_forks_does_not_hold_the_run_open(start, tmp_path):
    child = start(
        TOOLS
        + '''
from crewai.events import crewai_event_bus
from crewai.events.types.reasoning_events import AgentReasoningCompletedEvent
@tool("Fork")
def fork(word: str) -> str:
    """Leave a process behind, and die."""
    ready, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        crewai_event_bus.emit(None, AgentReasoningCompletedEvent(agent_role="F", task_id="", plan="not ours", ready=True))
        os.write(go, b"x")
        threading.Event().wait(60)
    os.read(ready, 1)
    with open("forked", "w") as file:
        file.write(str(pid))
    os._exit(9)
def build():
    return crew(task(agent(use("Fork", word="a"), tools=[fork], role="A"), "a"))
'''
    )
    try:
        lines = child.rest()
        assert child.status() == 9
        assert [line.get("type") for line in lines][-1] == "tool_usage_started"
    finally:
        os.kill(int((tmp_path / "forked").read_text()), signal.SIGKILL)
