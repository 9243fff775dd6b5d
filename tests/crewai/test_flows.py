"""Flows with real CrewAI: whose each step is, however a flow runs its crews."""

import pytest

from tests.crewai.flow_lab import REACT, kinds_of

DIGGERS = """
def digger(n, before=lambda: None):
    def first():
        before()
        return use("Look Up", word=f"w{n}")
    return crew(task(agent(first, answer(f"a{n}"), role=f"A{n}", tools=[look_up]), f"t{n}"))
"""


# Crews and methods


def test_a_methods_crews_are_its_tasks_and_their_names_repeat(run_flow):
    told = run_flow("""
class F(Flow):
    @start()
    def one(self):
        return [say(text, "dig").kickoff() for text in "xy"]
""")
    assert told.tasks == [("dig", "completed", "x"), ("dig-2", "completed", "y")]
    assert told.outcome["output"] == '["x", "y"]'


def test_a_crew_object_that_is_kicked_off_again_has_tasks_of_its_own(run_flow):
    told = run_flow("""
CREW = crew(task(agent(*[answer(str(n)) for n in range(3)]), "dig"))
class F(Flow):
    @start()
    def one(self):
        return [CREW.kickoff().raw for _ in range(2)]
    @listen(one)
    def two(self):
        return CREW.kickoff()
""")
    assert told.tasks == [("dig", "completed", "0"), ("dig-2", "completed", "1"), ("dig-3", "completed", "2")]
    assert told.outcome["output"] == "2"


@pytest.mark.parametrize("kickoff", ["kickoff_for_each", "kickoff_for_each_async", "akickoff_for_each"])
def test_a_crew_for_each_input_has_its_tasks_for_each(run_flow, kickoff):
    told = run_flow(f"""
class F(Flow):
    @start()
    def one(self):
        work = crew(task(agent(answer("x"), answer("y"), role="{{word}}er"), "dig", "About {{word}}."))
        return work.{kickoff}([{{"word": "a"}}, {{"word": "b"}}])
""")
    assert sorted((name, status) for name, status, _ in told.tasks) == [
        ("dig", "completed"),
        ("dig-2", "completed"),
    ]
    assert sorted(map(sorted, told.agents().values())) == [["aer"], ["ber"]]


def test_methods_side_by_side_keep_their_crews_apart(run_flow):
    told = run_flow(
        DIGGERS
        + """
GATE = threading.Barrier(3)
class F(Flow):
    @start()
    def one(self):
        return digger(1, GATE.wait).kickoff().raw
    @start()
    async def two(self):
        return (await digger(2, GATE.wait).kickoff_async()).raw
    @start()
    async def three(self):
        return (await digger(3, GATE.wait).akickoff()).raw
    @listen(and_(one, two, three))
    def after(self):
        return "all"
"""
    )
    assert {name: kinds_of(told)[name] for name in ("t1", "t2", "t3")} == dict.fromkeys(
        ("t1", "t2", "t3"), REACT
    )
    assert told.agents() == {"t1": {"A1"}, "t2": {"A2"}, "t3": {"A3"}}
    assert told.tasks[3] == ("after", "completed", "all")


SIDE_BY_SIDE = {
    "gather": "return [r.raw for r in await asyncio.gather(*(digger(n, gate.wait).kickoff_async() for n in range(3)))]",
    "native": "return [r.raw for r in await asyncio.gather(*(digger(n, gate.wait).akickoff() for n in range(3)))]",
    "pool": """
            def work(n): return digger(n, gate.wait).kickoff().raw
            with ThreadPoolExecutor(3) as pool: return list(pool.map(work, range(3)))""",
    "executor": """
            loop = asyncio.get_running_loop()
            work = [loop.run_in_executor(None, digger(n, gate.wait).kickoff) for n in range(3)]
            return [r.raw for r in await asyncio.gather(*work)]""",
    "threads": """
            found = {}
            def work(n): found[n] = digger(n, gate.wait).kickoff().raw
            threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            return [found[n] for n in range(3)]""",
    "loops": """
            found = {}
            def work(n): found[n] = asyncio.run(digger(n, gate.wait).akickoff()).raw
            threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            return [found[n] for n in range(3)]""",
}


@pytest.mark.parametrize("way", SIDE_BY_SIDE)
def test_crews_side_by_side_in_one_method_keep_their_events_apart(run_flow, way):
    """Each waits in its first call for the others: they are all at work at once."""
    told = run_flow(
        DIGGERS
        + f"""
class F(Flow):
    @start()
    async def one(self):
        gate = threading.Barrier(3)
        if True:
            {SIDE_BY_SIDE[way].strip()}
"""
    )
    assert kinds_of(told) == {"t0": REACT, "t1": REACT, "t2": REACT}
    assert told.agents() == {"t0": {"A0"}, "t1": {"A1"}, "t2": {"A2"}}
    assert sorted(told.tasks) == [(f"t{n}", "completed", f"a{n}") for n in range(3)]
    assert told.outcome["output"] == '["a0", "a1", "a2"]'


def test_a_pool_that_methods_share_works_for_whoever_gave_it_the_work(run_flow):
    told = run_flow("""
POOL = ThreadPoolExecutor(1)
BOTH = threading.Barrier(2)
def ask(what): return ScriptedLLM.saying(what).call("x")
class F(Flow):
    @start()
    def one(self):
        BOTH.wait(); return POOL.submit(ask, "one").result(), BOTH.wait()
    @start()
    def two(self):
        BOTH.wait(); return POOL.submit(ask, "two").result(), BOTH.wait()
""")
    assert sorted(told.steps) == [("one", "thought", "one"), ("two", "thought", "two")]
    assert sorted(name for name, _, _ in told.tasks) == ["one", "two"]


def test_a_thread_that_was_there_before_the_flow_has_its_crews_told(run_flow):
    """Nothing says whom it works for; its crews' tasks are the run's all the same."""
    told = run_flow(
        DIGGERS
        + """
import queue
WORK, DONE = queue.Queue(), queue.Queue()
def forever():
    while True:
        DONE.put(WORK.get()())
threading.Thread(target=forever, daemon=True).start()
class F(Flow):
    @start()
    def one(self):
        gate = threading.Barrier(2)
        WORK.put(lambda: digger(1, gate.wait).kickoff().raw)
        return digger(2, gate.wait).kickoff().raw + DONE.get()
"""
    )
    assert kinds_of(told) == {"t1": REACT, "t2": REACT}
    assert told.agents() == {"t1": {"A1"}, "t2": {"A2"}}


def test_tasks_of_a_crew_side_by_side_in_a_flow(run_flow):
    told = run_flow("""
class F(Flow):
    @start()
    def one(self):
        some = [agent(use("Look Up", word=r), answer(r), role=r, tools=[look_up]) for r in ("A", "B", "C")]
        a, b, c = (task(each, each.role.lower(), async_execution=n < 2) for n, each in enumerate(some))
        return crew(a, b, c).kickoff()
""")
    assert told.agents() == {"a": {"A"}, "b": {"B"}, "c": {"C"}}
    assert [each["task_id"] for each in told.outcome["tasks"]] == ["a", "b", "c"]


def test_a_hierarchical_crew_in_a_flow(run_flow):
    told = run_flow("""
class F(Flow):
    @start()
    def one(self):
        worker = agent(use("Look Up", word="a"), answer("done"), tools=[look_up], role="Worker")
        ask = use("delegate_work_to_coworker", task="do it", context="now", coworker="Worker")
        manager = ScriptedLLM.saying(ask, answer("all done"))
        work = Task(name="work", description="D", expected_output="E")
        return Crew(agents=[worker], tasks=[work], process=Process.hierarchical, manager_llm=manager).kickoff()
""")
    assert told.agents() == {"work": {"Crew Manager", "Worker"}}
    assert told.tasks == [("work", "completed", "all done")]


def test_a_crews_planning_is_no_work_of_the_method(run_flow):
    told = run_flow("""
import json
class F(Flow):
    @start()
    def one(self):
        plan = json.dumps({"list_of_plans_per_task": [{"task_number": 1, "task": "a", "plan": "do it"}]})
        return say("x", "dig", planning=True, planning_llm=ScriptedLLM.saying(answer(plan))).kickoff()
""")
    assert told.agents() == {None: {"Task Execution Planner"}, "dig": {"R"}}
    assert told.tasks == [("dig", "completed", "x")]


def test_a_crew_that_streams_is_read_by_the_flow(run_flow):
    told = run_flow("""
class F(Flow):
    @start()
    def one(self):
        stream = say("x", "dig", stream=True).kickoff()
        for _ in stream: pass
        return stream.result
""")
    assert told.tasks == [("dig", "completed", "x")]
    assert told.outcome["output"] == "x"


def test_a_crew_in_a_tool_of_a_flows_crew_belongs_to_the_task_around_it(run_flow):
    """Also in a thread that the tool starts."""
    told = run_flow('''
@tool("Ask")
def ask(word: str) -> str:
    """Ask another crew."""
    found = []
    thread = threading.Thread(target=lambda: found.append(say("in", role="Inner").kickoff().raw))
    thread.start(); thread.join()
    return found[0]
class F(Flow):
    @start()
    def one(self):
        return crew(task(agent(use("Ask", word="a"), answer("out"), tools=[ask], role="Outer"), "outer")).kickoff()
''')
    assert told.agents() == {"outer": {"Inner", "Outer"}}
    assert told.tasks == [("outer", "completed", "out")]
