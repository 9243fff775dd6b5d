"""Flows that would wait for a person where nobody can be asked, since no journal is kept or CrewAI has no way for it: they
are refused with a sentence, at once, and nothing more is paid for.
"""

import pytest

from tests.crewai.releases import has

REVIEWED = """
CALLS = open("calls", "a")
def reviewed():
    return crew(task(agent(lambda: CALLS.write("reviewed")), "check", human_input=True))
def busy():
    def step():
        time.sleep(0.02)
        CALLS.write("b"); CALLS.flush()
        # CrewAI stops an agent that calls for the same again and again.
        return use("Look Up", word=str(time.monotonic()))
    return crew(task(agent(*[step] * 999, answer("x"), tools=[look_up], max_iter=2000), "busy"))
async def after_a_while():
    await asyncio.sleep(0.1)
    return await reviewed().akickoff()
def later():
    time.sleep(0.1)
    return reviewed().kickoff()
"""
REVIEW = "human_input=True is not supported yet; it is set on: check"


@pytest.mark.parametrize(
    "body",
    [
        "def one(self): return reviewed().kickoff()",
        "async def one(self): return await reviewed().kickoff_async()",
        "async def one(self): return await asyncio.gather(busy().kickoff_async(), after_a_while())",
        "async def one(self): return await asyncio.gather(busy().akickoff(), after_a_while())",
        "def one(self):\n        with ThreadPoolExecutor(2) as pool: return [f.result() for f in (pool.submit(busy().kickoff), pool.submit(later))]",
        "def one(self):\n        threading.Thread(target=later).start()\n        return busy().kickoff()",
        "def one(self):\n        try: later()\n        except BaseException: return 'caught'\n    @start()\n    def two(self): return busy().kickoff()",
        "def one(self):\n        class Inner(Flow):\n            @start()\n            def deep(self): return reviewed().kickoff()\n        return Inner().kickoff()",
    ],
    ids=["sync", "async", "gather", "native", "pool", "thread", "caught", "inner"],
)
def test_a_task_for_review_ends_the_run_and_all_that_is_at_work(run_flow, tmp_path, body):
    told = run_flow(
        f"{REVIEWED}\nclass F(Flow):\n    @start()\n    {body}\n    @listen(one)\n    def never(self): pass",
        journal=None,
    )
    assert (told.outcome["kind"], told.outcome["error"]) == ("refused", REVIEW)
    assert told.outcome["tasks"] == []
    assert told.tasks == []
    calls = (tmp_path / "calls").read_text()
    assert "reviewed" not in calls
    # What else was at work has stopped at its next event, and not at its end.
    assert calls == "b" * len(calls)
    assert len(calls) < 999


def test_a_refusal_waits_for_no_thread(start_flow):
    """The other method is blocked for longer than this test has patience."""
    child = start_flow(
        REVIEWED
        + """
class F(Flow):
    @start()
    def one(self): return later()
    @start()
    def two(self): threading.Event().wait(600)
""",
        journal=None,
    )
    assert child.until("failed")["error"] == REVIEW


ASKING = """
class F(Flow):
    {0}
    @start()
    def one(self):
        return self.ask("What?"{1})
    @listen(one)
    def two(self, said):
        return ScriptedLLM.saying("never called").call(said)
"""


@pytest.mark.parametrize("timeout", ["", ", timeout=5"])
def test_a_flow_that_asks_a_person_is_refused_when_it_asks(run_flow, timeout):
    told = run_flow(ASKING.format("", timeout))
    assert (told.outcome["kind"], told.outcome["error"]) == (
        "refused",
        "self.ask() is not supported yet; it is called in: one",
    )
    assert told.steps == told.tasks == []


def test_a_flow_that_asks_a_provider_of_its_own_is_run(run_flow):
    provider = """
class Fixed:
    def request_input(self, message, flow, metadata=None):
        return "tea"
"""
    told = run_flow(provider + ASKING.format("input_provider = Fixed()", ""))
    assert told.tasks == [("one", "completed", "tea"), ("two", "completed", "never called")]


FEEDBACK = """
from crewai.flow.human_feedback import human_feedback
class Asking(Flow):
    @start()
    @human_feedback(message="Good?")
    def draft(self):
        return ScriptedLLM.saying("a draft").call("x")
    @listen(draft)
    def after(self):
        return ScriptedLLM.saying("never called").call("x")
"""


def test_a_flow_with_human_feedback_is_refused_before_it_costs_anything(run_flow):
    told = run_flow(FEEDBACK, journal=None)
    assert [line["op"] for line in told.lines] == ["failed"]
    assert told.outcome["error"] == "@human_feedback is not supported yet; it is set on: draft"


def test_human_feedback_of_an_inner_flow_is_refused_when_it_asks(run_flow):
    told = run_flow(
        FEEDBACK + "class F(Flow):\n    @start()\n    def one(self): return Asking().kickoff()", journal=None
    )
    named = ("draft",) if has("1.15.0") else ("draft", "a flow inside this one")
    assert told.outcome["error"] in [
        f"@human_feedback is not supported yet; it is set on: {name}" for name in named
    ]
    assert told.steps == [("one", "thought", "a draft")]


def test_a_conversational_flow_is_refused(run_flow):
    told = run_flow("class F(Flow):\n    conversational = True\n    @start()\n    def one(self): return 1")
    assert [line["op"] for line in told.lines] == ["failed"]
    assert told.outcome["error"].startswith("a conversational flow takes turns with a person")
