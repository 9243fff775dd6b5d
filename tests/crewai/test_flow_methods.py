"""Flows with real CrewAI: which methods are tasks, what is theirs, and what the routes of a flow repeat or cancel."""

from tests.crewai.flow_lab import REACT, kinds_of
from tests.crewai.releases import since

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


@since("1.14.7", "loops through a method that listens to one of several")
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
    def end(self):
        return "the end"
""")
    assert [(name, output) for name, _, output in told.tasks] == [
        ("begin", ""),
        ("draft", "draft 1"),
        ("check", "again"),
        ("draft-2", "draft 2"),
        ("check-2", "again"),
        ("draft-3", "draft 3"),
        ("check-3", "done"),
        ("end", "the end"),
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


def test_what_follows_a_cancelled_crew_is_not_inside_it(run_flow):
    """The limit cancels in the method's own context, which the crew had made its task's."""
    told = run_flow("""
STOP = threading.Event()
def wait():
    STOP.wait(30)
    return answer("late")
class F(Flow):
    @start()
    async def one(self):
        try:
            async with asyncio.timeout(0.2):
                await crew(task(agent(wait), "slow")).akickoff()
        except TimeoutError:
            return (await say("instead", "quick").akickoff()).raw + ScriptedLLM.saying("!").call("x")
    @listen(one)
    def two(self, what):
        STOP.set()
        return say("after").kickoff()
""")
    assert told.tasks == [
        ("quick", "completed", "instead"),
        ("one", "completed", "instead!"),
        ("after", "completed", "after"),
        ("slow", "error", "cancelled: the run went on without it"),
    ]


def test_what_follows_a_crew_that_was_left_is_not_inside_it(run_flow):
    told = run_flow("""
class F(Flow):
    @start()
    def one(self):
        try:
            crew(task(agent(SystemExit("enough")), "left")).kickoff()
        except SystemExit:
            return say("instead", "quick").kickoff().raw + ScriptedLLM.saying("!").call("x")
""")
    assert told.tasks == [
        ("quick", "completed", "instead"),
        ("one", "completed", "instead!"),
        ("left", "error", "cancelled: the run went on without it"),
    ]
