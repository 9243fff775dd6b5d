"""How a flow ends with real CrewAI: its result, its failure, an exit; and nothing after it."""

import pytest

from tests.crewai.flow_lab import HEADER
from tests.crewai.releases import since

BAD = """
def bad(text="no model", name="bad"):
    return crew(task(agent(*[RuntimeError(text)] * 9), name))
"""


def method(body, head=""):
    """A flow of one method."""
    return f"{head}\nclass F(Flow):\n    @start()\n    def one(self):\n        {body}\n"


# Results


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("'a text'", "a text"),
        ("say('x').kickoff()", "x"),
        ("[say('x').kickoff(), {'y': say('y').kickoff()}]", '["x", {"y": "y"}]'),
        ("agent(answer('x')).kickoff('do')", "x"),
        ("None", ""),
        ("{'n': 1, 'grün': [True, None]}", '{"n": 1, "grün": [true, null]}'),
        ("float('nan')", "null"),
        ("{'a': float('inf')}", '{"a": null}'),
        ("'a\\ud800b \\ud83d\\ude00'", "a\ufffdb \U0001f600"),
        ("datetime.datetime(2026, 1, 31, 12)", "2026-01-31T12:00:00"),
        ("Point(1)", '{"x": 1}'),
        ("Model(x={1})", '{"x": [1]}'),
        ("Odd()", "<Odd>"),
        ("ValueError('returned')", "returned"),
    ],
)
def test_the_result_is_what_the_last_method_returns(run_flow, value, text):
    head = """
import dataclasses, datetime
@dataclasses.dataclass
class Point:
    x: int
class Model(BaseModel):
    x: set
class Odd:
    def __str__(self): raise ValueError
"""
    told = run_flow(method(f"return {value}", head))
    assert told.outcome["output"] == text


def test_megabytes_arrive_whole(run_flow):
    told = run_flow(method("return 'ä' * 3_000_000"))
    assert told.tasks == [("one", "completed", "ä" * 3_000_000)]
    assert told.outcome["output"] == "ä" * 3_000_000


# Failures


def test_a_method_that_raises_is_told_and_ends_the_run(run_flow):
    told = run_flow("""
class F(Flow):
    @start()
    def one(self):
        return 1
    @router(one)
    def which(self):
        raise LookupError("no way")
    @listen("somewhere")
    def never(self):
        pass
""")
    assert told.tasks == [("one", "completed", "1"), ("which", "error", "no way")]
    # The eighth line of this code raises.
    place = f"src/lab/main.py:{HEADER.count(chr(10)) + 8}"
    assert (told.outcome["kind"], told.outcome["error"]) == ("crew", f"LookupError: no way ({place})")
    assert told.outcome["traceback"].startswith("Traceback")
    assert [each["task_id"] for each in told.outcome["tasks"]] == ["one"]


@pytest.mark.parametrize(
    ("body", "tasks", "error"),
    [
        ("return bad().kickoff()", [("bad", "no model")], "RuntimeError: no model"),
        (
            "try: bad().kickoff()\n        except Exception as e: raise KeyError('wrapped') from e",
            [("bad", "no model")],
            "KeyError: 'wrapped'",
        ),
        (
            "try: bad().kickoff()\n        except Exception: pass\n        raise KeyError('other')",
            [("bad", "no model"), ("one", "'other'")],
            "KeyError: 'other'",
        ),
        (
            "ScriptedLLM.saying('hm').call('x')\n        return bad().kickoff()",
            [("bad", "no model"), ("one", "no model")],
            "RuntimeError: no model",
        ),
        (
            "say('x', 'good').kickoff()\n        raise KeyError('after')",
            [("good", None), ("one", "'after'")],
            "KeyError: 'after'",
        ),
        (
            "return say('{word}').kickoff({'other': 1})",
            [("one", "Template variable 'word' not found")],
            "",
        ),
    ],
)
def test_a_failure_is_told_once_by_the_innermost_task_that_it_is_of(run_flow, body, tasks, error):
    code = method(body, BAD).replace("say('{word}')", "crew(task(agent(), description='About {word}.'))")
    told = run_flow(code)
    found = [(name, output if status == "error" else None) for name, status, output in told.tasks]
    if error:
        assert found == tasks
        assert told.outcome["error"].startswith(error + " (src/")
    else:
        [(name, output)] = found
        assert name == "one"
        assert "word" in output
    # Also an input that an inner crew misses is no matter of the flow's inputs.
    assert told.outcome["kind"] == "crew"


def test_a_crew_that_fails_may_be_caught(run_flow):
    told = run_flow(
        BAD
        + """
class F(Flow):
    @start()
    def one(self):
        try:
            return bad().kickoff()
        except RuntimeError:
            return say("instead", "good").kickoff()
    @listen(one)
    def two(self, found):
        return found.raw
"""
    )
    assert told.tasks == [
        ("bad", "error", "no model"),
        ("good", "completed", "instead"),
        ("two", "completed", "instead"),
    ]
    assert told.outcome["output"] == "instead"


def test_a_tool_that_fails_in_a_methods_agent_has_its_result(run_flow):
    told = run_flow('''
@tool("Leave")
def leave(word: str) -> str:
    """Leave."""
    raise SystemExit(3)
class F(Flow):
    @start()
    def one(self):
        return agent([call("leave", word="a")], native=True, tools=[leave]).kickoff("do")
''')
    assert [kind for _, kind, _ in told.steps] == ["tool_call", "tool_result"]
    assert told.outcome["error"].startswith("SystemExit: 3 (src/lab/main.py:")


@pytest.mark.parametrize(
    ("leave", "error"),
    [
        ("sys.exit(3)", "SystemExit: 3 (src/lab/main.py:"),
        ("sys.exit()", "SystemExit (src/lab/main.py:"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt (src/lab/main.py:"),
        ("raise GeneratorExit", "GeneratorExit (src/lab/main.py:"),
        ("raise asyncio.CancelledError('enough')", "CancelledError: enough (src/lab/main.py:"),
    ],
)
@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_method_that_leaves_ends_the_run_as_failed(run_flow, leave, error, kind):
    told = run_flow(f"""
class F(Flow):
    @start()
    def one(self):
        return 1
    @listen(one)
    {kind} two(self):
        {leave}
""")
    assert told.tasks == [("one", "completed", "1")]
    assert told.outcome["op"] == "failed"
    assert told.outcome["error"].startswith(error)


def test_an_exit_in_a_thread_is_the_threads(run_flow):
    told = run_flow(
        method("thread = threading.Thread(target=sys.exit); thread.start(); thread.join(); return 'on'")
    )
    assert told.outcome["output"] == "on"


def test_a_process_that_ends_itself_says_nothing_more(start_flow):
    child = start_flow(
        "class F(Flow):\n    @start()\n    def one(self): return 1\n    @listen(one)\n    def two(self): os._exit(9)"
    )
    lines = child.rest()
    assert [line.get("type", line["op"]) for line in lines] == [
        "started",
        "method_execution_started",
        "task_completed",
        "method_execution_started",
    ]
    assert child.status() == 9


def test_more_calls_than_crewai_allows_are_told_in_its_words(run_flow):
    told = run_flow("""
class F(Flow):
    @start()
    def begin(self): pass
    @listen("again")
    def work(self): pass
    @router(or_(begin, work))
    def check(self):
        return "again"
""")
    assert len(told.tasks) == 1 + 2 * 100
    assert told.tasks[-2:] == [("check-100", "completed", "again"), ("work-100", "completed", "")]
    assert told.outcome["error"].startswith("RecursionError: Method 'check' has been called 100 times")


@pytest.mark.parametrize(
    "allow",
    [
        pytest.param("max_method_calls = 300", marks=since("1.13.0", "flows that are models")),
        "def __init__(self): super().__init__(max_method_calls=300)",
    ],
)
def test_two_hundred_turns_where_the_flow_allows_them(run_flow, allow):
    told = run_flow(
        """
class F(Flow):
    ALLOW
    @start()
    def begin(self): self.state["n"] = 0
    @router(or_(begin, "again"))
    def turn(self):
        self.state["n"] += 1
        return "again" if self.state["n"] < 200 else "done"
    @listen("done")
    def end(self): return self.state["n"]
""".replace("ALLOW", allow)
    )
    assert [name for name, _, _ in told.tasks[-2:]] == ["turn-200", "end"]
    assert told.outcome["output"] == "200"


# After the end


def test_a_thread_that_works_on_is_not_heard(run_flow):
    """Its crews go on while the process leaves, which this handler of its own makes take a moment."""
    told = run_flow("""
import atexit
BUSY, MORE = threading.Event(), threading.Event()
def forever():
    say("early").kickoff()
    BUSY.set()
    while True:
        say("late").kickoff()
        MORE.set()
class F(Flow):
    @start()
    def one(self):
        threading.Thread(target=forever, daemon=True).start()
        BUSY.wait(30)
        def last():
            MORE.clear()
            print("worked on:", MORE.wait(60))
        atexit.register(last)
        return "over"
""")
    assert told.outcome["output"] == "over"
    assert told.tasks[0] == ("early", "completed", "early")
    assert "worked on: True" in told.log
    assert "Exception" not in told.log


def test_a_process_that_a_flow_forks_says_nothing_and_holds_nothing_open(start_flow):
    child = start_flow("""
class F(Flow):
    @start()
    def one(self):
        pid = os.fork()
        if pid == 0:
            ScriptedLLM.saying("from the fork").call("x")
            os._exit(0)
        os.waitpid(pid, 0)
        return "parent"
    @listen(one)
    def two(self):
        parent = os.getpid()
        if os.fork() == 0:
            # Until it is alone; the channel ends all the same.
            while os.getppid() == parent: time.sleep(0.01)
            time.sleep(1)
            os._exit(0)
        os._exit(9)
""")
    lines = child.rest()
    assert [line.get("type", line["op"]) for line in lines] == [
        "started",
        "method_execution_started",
        "task_completed",
        "method_execution_started",
    ]
    assert child.status() == 9


def test_suppressed_events_and_streaming_change_nothing(run_flow):
    told = run_flow("""
class F(Flow):
    suppress_flow_events = True
    stream = True
    @start()
    def one(self):
        return say("x").kickoff()
    @listen(one)
    def two(self):
        return 2
""")
    assert told.tasks == [("x", "completed", "x"), ("two", "completed", "2")]
    assert told.outcome["output"] == "2"
