"""Flows with real CrewAI: whose each step is, and what is a task, however a flow runs its crews."""

import pytest

# What a crew of one agent with a tool tells of its task; `say()` tells the last of these alone.
REACT = ["thought", "action", "tool_call", "tool_result", "observation", "thought"]
DIGGERS = """
def digger(n, before=lambda: None):
    def first():
        before()
        return use("Look Up", word=f"w{n}")
    return crew(task(agent(first, answer(f"a{n}"), role=f"A{n}", tools=[look_up]), f"t{n}"))
"""


def kinds_of(told):
    """The types of each task's steps."""
    found = {}
    for task_id, kind, _ in told.steps:
        found.setdefault(task_id, []).append(kind)
    return found


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
def ask(): return ScriptedLLM.saying("hm").call("x")
class F(Flow):
    @start()
    def one(self):
        return POOL.submit(ask).result()
    @listen(one)
    def two(self):
        return POOL.submit(ask).result()
""")
    assert [(name, kind) for name, kind, _ in told.steps] == [("one", "thought"), ("two", "thought")]
    assert [name for name, _, _ in told.tasks] == ["one", "two"]


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


# Methods that are tasks


def test_plain_methods_are_tasks_without_steps_and_agent(run_flow):
    told = run_flow("""
class F(Flow):
    @start()
    def one(self):
        return {"n": 1}
    @listen(one)
    async def add(self, given):
        return given["n"] + 1
    @listen(add)
    def nothing(self):
        pass
""")
    assert told.tasks == [
        ("one", "completed", '{"n": 1}'),
        ("add", "completed", "2"),
        ("nothing", "completed", ""),
    ]
    assert told.steps == []
    assert told.outcome["output"] == ""
    assert all("agent" not in each for each in told.outcome["tasks"])


def test_a_methods_own_calls_are_its_steps_beside_those_of_its_crews(run_flow):
    told = run_flow("""
class F(Flow):
    @start()
    def one(self):
        title = ScriptedLLM.saying("a title").call("x")
        text = say("x", "dig").kickoff().raw
        return title + ": " + text + ScriptedLLM.saying("!").call("x")
""")
    assert told.steps == [
        ("one", "thought", "a title"),
        ("dig", "thought", "I know."),
        ("one", "thought", "!"),
    ]
    assert told.tasks == [("dig", "completed", "x"), ("one", "completed", "a title: x!")]


def test_agents_without_a_crew_work_for_their_method(run_flow):
    told = run_flow("""
def helper(role, native=False):
    steps = [[call("look_up", word="a")], "done"] if native else [use("Look Up", word="a"), answer("done")]
    return agent(*steps, native=native, role=role, tools=[look_up])
class F(Flow):
    @start()
    def react(self):
        return helper("A").kickoff("do")
    @start()
    async def native(self):
        return await helper("B", native=True).kickoff_async("do")
    @listen(and_(react, native))
    def several(self):
        helper("C").kickoff("do"); return helper("D").kickoff("do")
    @listen(several)
    def alone(self):
        return task(helper("E"), "no crew").execute_sync()
""")
    kinds = kinds_of(told)
    assert (kinds["react"], kinds["alone"]) == (REACT, REACT)
    assert kinds["native"] == ["tool_call", "tool_result", "thought"]
    assert told.agents() == {"react": {"A"}, "native": {"B"}, "several": {"C", "D"}, "alone": {"E"}}
    # Of one agent, the method's task has it; of two, neither stands for it.
    agents = {each["task_id"]: each.get("agent") for each in told.outcome["tasks"]}
    assert agents == {"react": "A", "native": "B", "several": None, "alone": "E"}
    assert {output for _, _, output in told.tasks} == {"done"}


def test_a_flow_inside_a_method_tells_its_crews_and_not_its_methods(run_flow):
    told = run_flow("""
class Inner(Flow):
    @start()
    def begin(self):
        return say("x", "dig").kickoff().raw
    @listen(begin)
    def end(self, found):
        return found + ScriptedLLM.saying("!").call("x")
class Outer(Flow):
    @start()
    def waiting(self):
        return Inner().kickoff()
    @listen(waiting)
    async def awaiting(self):
        return await Inner().kickoff_async()
    @listen(awaiting)
    def plain(self):
        class Plain(Flow):
            @start()
            def only(self):
                return 1
        return Plain().kickoff()
""")
    assert told.tasks == [
        ("dig", "completed", "x"),
        ("waiting", "completed", "x!"),
        ("dig-2", "completed", "x"),
        ("awaiting", "completed", "x!"),
        ("plain", "completed", "1"),
    ]


# Routes


def test_a_loop_counts_its_methods(run_flow):
    told = run_flow("""
class F(Flow):
    @start()
    def begin(self):
        self.state["n"] = 0
    @listen(or_(begin, "again"))
    def write(self):
        self.state["n"] += 1
        return say(f"draft {self.state['n']}", "draft").kickoff().raw
    @router(write)
    def check(self):
        return "again" if self.state["n"] < 3 else "done"
    @listen("done")
    def end(self, why):
        return why
""")
    assert [(name, output) for name, _, output in told.tasks] == [
        ("begin", ""),
        ("draft", "draft 1"),
        ("check", "again"),
        ("draft-2", "draft 2"),
        ("check-2", "again"),
        ("draft-3", "draft 3"),
        ("check-3", "done"),
        ("end", "done"),
    ]


def test_a_start_that_a_route_repeats(run_flow):
    told = run_flow("""
class F(Flow):
    n = 0
    @start("again")
    def begin(self):
        F.n += 1
        return F.n
    @router(begin)
    def check(self, n):
        return "again" if n < 2 else "done"
    @listen("done")
    def end(self):
        return F.n
""")
    assert [name for name, _, _ in told.tasks] == ["begin", "check", "begin-2", "check-2", "end"]
    assert told.outcome["output"] == "2"


def test_joins_run_once(run_flow):
    told = run_flow("""
class F(Flow):
    @start()
    def one(self): return 1
    @start()
    def two(self): return 2
    @listen(and_(one, two))
    def both(self): return "both"
    @listen(or_(one, two))
    def either(self): return "either"
""")
    assert sorted(name for name, _, _ in told.tasks) == ["both", "either", "one", "two"]


def test_a_listener_that_loses_a_race_is_told_as_cancelled_if_it_has_begun_to_tell(run_flow):
    told = run_flow("""
ASKED = asyncio.Event()
class F(Flow):
    @start()
    def begin(self): return 1
    @listen(begin)
    async def slow(self):
        ScriptedLLM.saying("hm").call("x")
        ASKED.set()
        await asyncio.sleep(60)
    @listen(begin)
    async def silent(self):
        await asyncio.sleep(60)
    @listen(begin)
    async def quick(self):
        await ASKED.wait()
        return "quick"
    @listen(or_(slow, silent, quick))
    def end(self, what): return what
""")
    assert told.tasks == [
        ("begin", "completed", "1"),
        ("quick", "completed", "quick"),
        ("end", "completed", "quick"),
        ("slow", "error", "cancelled: the run went on without it"),
    ]
    assert told.outcome["output"] == "quick"


def test_a_crew_that_a_time_limit_cancels_is_told_as_cancelled(run_flow):
    told = run_flow("""
STOP = threading.Event()
def wait():
    STOP.wait(30)
    return answer("late")
class F(Flow):
    @start()
    async def one(self):
        slow = crew(task(agent(use("Look Up", word="a"), wait, role="{who}", tools=[look_up]), "slow"))
        try:
            await asyncio.wait_for(slow.akickoff({"who": "Anna"}), 0.2)
        except asyncio.TimeoutError:
            return "went on"
    @listen(one)
    def two(self, what):
        STOP.set()
        return what
""")
    assert told.tasks == [
        ("two", "completed", "went on"),
        ("slow", "error", "cancelled: the run went on without it"),
    ]
    assert told.agents() == {"slow": {"Anna"}}
    assert told.outcome["output"] == "went on"
