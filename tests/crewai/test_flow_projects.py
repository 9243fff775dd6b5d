"""What a flow takes and what is served of a module or a declaration, with real CrewAI."""

import json
from pathlib import Path

import pytest

from tests.crewai.flow_lab import tell
from tests.crewai.releases import since

declarative = since("1.15.0", "declarative flows")

# The state, and what comes of it


def stated(state, flow="Flow[State]", body="return self.state"):
    return f"""
from crewai.flow.flow import FlowState
from pydantic import ConfigDict, Field, field_validator
{state}
class F({flow}):
    @start()
    def one(self):
        {body}
"""


PYDANTIC = 'class State(BaseModel):\n    topic: str = "tea"\n    n: int = Field(default=1, ge=0)'


@pytest.mark.parametrize(
    ("code", "inputs", "only"),
    [
        (stated(PYDANTIC), ["n", "topic"], True),
        (stated(PYDANTIC.replace("BaseModel", "FlowState")), ["n", "topic"], True),
        (stated(PYDANTIC + "\n    model_config = ConfigDict(extra='allow')"), ["n", "topic"], False),
        (stated("", "Flow[dict]"), [], False),
        (stated("", "Flow"), [], False),
        (stated("", "Flow", "pass\n    initial_state = {'topic': 'tea', 'n': 1}"), ["n", "topic"], False),
        pytest.param(
            stated(PYDANTIC, "Flow", "pass\n    initial_state = State()"),
            ["n", "topic"],
            True,
            marks=since("1.13.0", "ids for states that are objects without one"),
        ),
        (
            stated(PYDANTIC.replace("BaseModel", "FlowState"), "Flow", "pass\n    initial_state = State()"),
            ["n", "topic"],
            True,
        ),
        (
            stated(PYDANTIC.replace("BaseModel", "FlowState"), "Flow", "pass\n    initial_state = State"),
            ["n", "topic"],
            True,
        ),
    ],
    ids=[
        "model",
        "flow state",
        "open model",
        "dict",
        "none",
        "initial dict",
        "initial object",
        "initial flow state",
        "initial class",
    ],
)
def test_the_inputs_are_the_fields_of_the_state(describe_flow, code, inputs, only):
    told = describe_flow(code)
    assert (told["op"], told["inputs"], told["required"], told["only"]) == ("described", inputs, [], only)
    assert (told["name"], told["tasks"], told["before_kickoff"]) == ("F", None, False)


def test_inputs_are_in_the_state_and_the_rest_has_its_defaults(run_flow):
    told = run_flow(
        stated(PYDANTIC, body="return [self.state.topic, self.state.n]"), inputs={"n": "3", "no field": 1}
    )
    assert told.outcome["output"] == '["tea", 3]'


def test_a_dict_takes_any_input_as_it_is(run_flow):
    told = run_flow(stated("", "Flow", "return self.state['any']"), inputs={"any": {"a": [1, None]}})
    assert told.outcome["output"] == '{"a": [1, null]}'


@pytest.mark.parametrize(
    ("inputs", "error"),
    [
        ({"n": "many"}, "n: Input should be a valid integer, unable to parse string as an integer"),
        ({"n": -1}, "n: Input should be greater than or equal to 0"),
        ({"topic": "bad", "n": None}, "topic: not that; n: Input should be a valid integer"),
        ({"more": 1}, "more: Extra inputs are not permitted"),
    ],
)
def test_inputs_that_do_not_fit_are_named_with_the_reason(run_flow, inputs, error):
    state = (
        PYDANTIC
        + """
    model_config = ConfigDict(extra="forbid")
    @field_validator("topic")
    @classmethod
    def check(cls, topic):
        if topic == "bad": raise ValueError("not that")
        return topic
"""
    )
    told = run_flow(stated(state), inputs=inputs)
    assert (told.outcome["kind"], told.outcome["error"]) == (
        "invalid",
        error + "; the flow takes: n, topic",
    )
    assert told.tasks == []


def test_inputs_of_an_inner_flow_that_do_not_fit_are_the_methods_failure(run_flow):
    told = run_flow(
        stated(PYDANTIC)
        + "class Outer(Flow):\n    @start()\n    def outer(self):\n        return F().kickoff({'n': 'many'})\n"
    )
    assert told.outcome["kind"] == "crew"
    assert [(name, status) for name, status, _ in told.tasks] == [("outer", "error")]


@pytest.mark.parametrize("base", ["BaseModel", "FlowState"])
def test_a_state_without_a_default_is_told_with_what_mends_it(describe_flow, base):
    told = describe_flow(stated(f"class State({base}):\n    topic: str\n    n: int\n    m: int = 1"))
    assert (told["op"], told["kind"]) == ("failed", "load")
    assert told["error"] == (
        "the state of F in src/lab/main.py has fields without a default: n, topic; CrewAI makes the state before the "
        "inputs come, so each needs one"
    )


def test_another_error_of_the_state_is_its_own(describe_flow):
    told = describe_flow(stated("class State(BaseModel):\n    n: int = Field(default_factory=lambda: 1 / 0)"))
    assert told["error"].startswith("ZeroDivisionError: division by zero (src/lab/main.py:")


def test_a_flow_that_takes_arguments_is_told(describe_flow):
    told = describe_flow(
        "class F(Flow):\n    def __init__(self, path):\n        super().__init__()\n    @start()\n    def one(self): pass"
    )
    assert (
        told["error"] == "src/lab/main.py takes arguments (path): Crewcast serves what is made without any."
    )


@since("1.15.0", "a check of the names of methods")
def test_a_method_that_crewai_does_not_take_is_told_in_its_words(describe_flow):
    told = describe_flow("class F(Flow):\n    @start()\n    def größe(self): pass")
    assert "Flow method names must match" in told["error"]


def test_the_trigger_payload_reaches_the_start_that_takes_it(run_flow):
    told = run_flow(
        stated(PYDANTIC)
        .replace("one(self)", "one(self, crewai_trigger_payload=None)")
        .replace("return self.state", "return crewai_trigger_payload"),
        inputs={"crewai_trigger_payload": {"mail": "hello"}, "topic": "coffee"},
    )
    assert told.outcome["output"] == '{"mail": "hello"}'


# What CrewAI keeps


def test_a_persisted_state_is_in_the_runs_own_folder(run_flow, flow_host, tmp_path):
    storage = tmp_path / "storage"
    home = files_below(flow_host.home)
    told = run_flow(
        """
from crewai.flow.persistence import persist
@persist()
class F(Flow):
    @start()
    def one(self):
        self.state["n"] = 1
    @listen(one)
    def two(self):
        return self.state["n"]
""",
        inputs={"id": "from before"},
        storage_dir=str(storage),
    )
    assert told.outcome["output"] == "1"
    assert (storage / "flow_states.db").is_file()
    assert {name for name in files_below(flow_host.home) - home if not name.endswith(".log")} == set()
    assert not list((tmp_path / "src").rglob("*.db"))


def files_below(folder):
    return {str(file.relative_to(folder)) for file in Path(folder).rglob("*") if file.is_file()}


def test_a_flows_memory_is_the_methods_own_work(run_flow, stub_llm, flow_host, tmp_path):
    """Its calls of a model are steps; what it saves in the background belongs to no task once the method has ended."""
    home = files_below(flow_host.home)
    told = run_flow(
        """
Flow._skip_auto_memory = False
class F(Flow):
    @start()
    def save(self):
        self.remember("Bees dance to tell where flowers are.")
    @listen(save)
    def find(self):
        return [match.record.content for match in self.recall("bees")]
    @listen(find)
    def more(self):
        self.remember(["Tea grows in hills.", "Coffee grows in hills."])
""",
        stub_llm=stub_llm,
        storage_dir=str(tmp_path / "storage"),
    )
    assert [(name, status) for name, status, _ in told.tasks] == [
        ("save", "completed"),
        ("find", "completed"),
        ("more", "completed"),
    ]
    assert json.loads(told.tasks[1][2]) == ["Bees dance to tell where flowers are."]
    assert "save" in told.agents()
    assert set(told.agents()) <= {"save", "find", "more", None}
    assert {name for name in files_below(flow_host.home) - home if not name.endswith(".log")} == set()


# What is served


SEVERAL = """
class Base(Flow):
    @start()
    def one(self): return type(self).__name__
class First(Base):
    @start()
    def one(self): return self.state.get("who", "First")
class Second(Base):
    @start()
    def one(self): return "Second"
"""


def test_of_several_flows_the_one_that_the_module_starts(run_flow):
    told = run_flow(
        SEVERAL + "def kickoff():\n    flow = Second()\n    flow.kickoff()\ndef plot():\n    First().plot()\n"
    )
    assert told.outcome["output"] == "Second"


def test_of_several_flows_the_first_and_a_warning(describe_flow):
    told = describe_flow(SEVERAL)
    assert told["name"] == "First"
    assert told["warnings"] == [
        "src/lab/main.py has several: First, Second; the first is served, another is named by MODULE:OBJECT"
    ]


def test_the_flow_that_starts_from_another_is_served(run_flow):
    told = run_flow(SEVERAL.partition("class Second")[0])
    assert told.outcome["output"] == "First"


def test_a_flow_that_has_no_methods_of_its_own_is_not_served_for_the_one_it_starts_from(run_flow):
    told = run_flow(SEVERAL.partition("class First")[0] + "class Empty(Base): pass")
    assert told.outcome["output"] == "Base"


@pytest.mark.parametrize(
    "code", ["class F(Flow): pass", "class F(Flow):\n    @listen('x')\n    def one(self): pass"]
)
def test_a_flow_that_would_do_nothing_is_told(describe_flow, code):
    told = describe_flow(code)
    assert (told["op"], told["kind"]) == ("failed", "load")
    assert told["error"].startswith("the flow F has no method with @start, so a kickoff does nothing; ")


def test_nothing_of_the_module_runs_but_the_flow(run_flow, tmp_path):
    told = run_flow(
        SEVERAL
        + "def kickoff():\n    open('ran', 'w')\n    Second().kickoff()\ndef plot():\n    open('ran', 'w')\n"
        + "if __name__ == '__main__':\n    kickoff()\n"
    )
    assert told.outcome["output"] == "Second"
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "start",
    [
        "F().kickoff({'n': 'never used'})",
        "asyncio.run(F().kickoff_async())",
        "try:\n    F().kickoff()\nexcept Exception:\n    print('caught')",
    ],
)
def test_a_module_that_starts_its_flow_when_imported_is_stopped_there(run_flow, start):
    told = run_flow(
        f"class F(Flow):\n    @start()\n    def one(self): return 'ran once'\n{start}\nraise SystemExit('after')"
    )
    assert told.outcome["output"] == "ran once"
    assert told.tasks == [("one", "completed", "ran once")]


def test_an_agent_that_a_module_asks_on_its_way_is_asked(run_flow):
    told = run_flow("""
TITLE = agent(answer("a title")).kickoff("Which title?").raw
class F(Flow):
    @start()
    def one(self): return TITLE
F().kickoff()
""")
    assert told.outcome["output"] == "a title"


@pytest.mark.parametrize(
    ("named", "result"),
    [
        ("flow", "made"),
        ("Second", "Second"),
        ("build", "built"),
        ("build_later", "built"),
        ("go", "gone"),
        ("go_later", "gone"),
        ("Maker.flow", "of a class"),
    ],
)
def test_a_flow_that_is_named_outright(flow_host, start_flow, tmp_path, named, result):
    code = (
        SEVERAL
        + """
def made(who):
    flow = First()
    flow.state["who"] = who
    return flow
flow = made("made")
def build(): return made("built")
async def build_later(): return made("built")
def go(): return made("gone").kickoff()
async def go_later(): return await made("gone").kickoff_async()
class Maker:
    def flow(self): return made("of a class")
"""
    )
    start_flow(code).result()  # writes the project; what it serves by itself is of no matter here
    about = {"kind": "object", "module": "lab.main", "object": named}
    child = flow_host.start(tmp_path, about=about)
    assert tell(child).outcome["output"] == result


# Declarations

DECLARED = """
schema: crewai.flow/v1
name: Declared
state:
  type: json_schema
  json_schema:
    type: object
    properties: {topic: {type: string}, rows: {type: array, items: {type: string}}, n: {type: integer}}
    required: [topic]
  default: {rows: [a, bb]}
methods:
  first:
    start: true
    do: {call: expression, expr: "state.topic + '!'"}
  loud:
    listen: first
    do: {call: code, ref: "lab.main:shout", with: {text: "${outputs.first}"}}
  count:
    listen: loud
    do: {call: tool, ref: "lab.main:Count", with: {text: "${outputs.loud}"}}
  rows:
    listen: count
    do:
      call: each
      in: state.rows
      do:
        - name: up
          action: {call: code, ref: "lab.main:shout", with: {text: "${item}"}}
        - name: ask
          action: {call: agent, with: {role: Asker, goal: g, backstory: b, input: "Say ${outputs.up}"}}
  inline:
    listen: rows
    do:
      call: crew
      with:
        agents: {r: {role: Near, goal: "Find {topic}", backstory: b}}
        tasks: [{name: dig, description: "Dig {topic}.", expected_output: facts, agent: r}]
      inputs: {topic: "${state.topic}"}
  elsewhere:
    listen: inline
    do: {call: crew, from_declaration: crews/far, inputs: {topic: "${state.topic}"}}
  last:
    listen: elsewhere
    do: {call: agent, with: {role: Lone, goal: g, backstory: b, input: "Say ${outputs.inline.raw}"}}
"""
PARTS = """
from crewai.tools import BaseTool
def shout(flow, text: str) -> str:
    return text.upper()
class Count(BaseTool):
    name: str = "Count"
    description: str = "Count letters."
    def _run(self, text: str) -> int:
        return len(text)
"""
FAR = {
    "name": "far",
    "agents": ["r"],
    "tasks": [{"name": "dig", "description": "Dig {topic}.", "expected_output": "facts", "agent": "r"}],
}
FILES = {
    "flow.yaml": DECLARED,
    "crews/far/crew.jsonc": json.dumps(FAR),
    "crews/far/agents/r.jsonc": json.dumps({"role": "Far", "goal": "Find {topic}", "backstory": "b"}),
}
SCRIPT = """
schema: crewai.flow/v1
name: Scripted
methods:
  only:
    start: true
    do: {call: script, code: "return len(state)"}
"""


@declarative
def test_a_declared_flow_is_described(describe_flow):
    told = describe_flow(PARTS, files=FILES)
    assert (told["op"], told["name"], told["tasks"]) == ("described", "Declared", None)
    assert (told["inputs"], told["required"], told["only"]) == (["n", "rows", "topic"], ["topic"], True)


@declarative
def test_a_declared_flow_runs_each_kind_of_action(run_flow, stub_llm):
    told = run_flow(PARTS, files=FILES, inputs={"topic": "tea"}, stub_llm=stub_llm)
    assert [(name, status) for name, status, _ in told.tasks] == [
        (name, "completed") for name in ("first", "loud", "count", "rows", "dig", "dig-2", "last")
    ]
    outputs = {name: output for name, _, output in told.tasks}
    assert (outputs["first"], outputs["loud"], outputs["count"]) == ("tea!", "TEA!", "4")
    assert len(json.loads(outputs["rows"])) == 2
    assert told.agents() == {"rows": {"Asker"}, "dig": {"Near"}, "dig-2": {"Far"}, "last": {"Lone"}}
    assert told.outcome["output"] == outputs["last"]


@declarative
def test_a_declared_flow_needs_what_its_schema_requires(run_flow):
    told = run_flow(PARTS, files=FILES, inputs={"n": 1})
    assert (told.outcome["kind"], told.outcome["error"]) == ("input", "topic; the flow takes: n, rows, topic")


@declarative
def test_a_declared_flow_checks_its_inputs(run_flow):
    told = run_flow(PARTS, files=FILES, inputs={"topic": "tea", "n": "many"})
    assert told.outcome["kind"] == "invalid"
    assert told.outcome["error"].startswith("n: Input should be a valid integer")


@declarative
def test_a_script_in_a_declaration_is_refused_by_crewai_and_the_error_says_what_allows_it(describe_flow):
    told = describe_flow("", files={"flow.yaml": SCRIPT})
    assert (told["op"], told["kind"]) == ("failed", "load")
    assert "Set CREWAI_ALLOW_FLOW_SCRIPT_EXECUTION=1 to enable it" in told["error"]


@declarative
def test_a_script_in_a_declaration_runs_where_the_project_allows_it(run_flow):
    told = run_flow("", files={"flow.yaml": SCRIPT, ".env": "CREWAI_ALLOW_FLOW_SCRIPT_EXECUTION=1\n"})
    # The state has an id.
    assert told.tasks == [("only", "completed", "1")]


@declarative
def test_an_action_that_is_nowhere_is_named(describe_flow):
    told = describe_flow("", files={"flow.yaml": DECLARED.replace("lab.main:shout", "lab.main:nowhere")})
    assert "loud" in told["error"]
    assert "lab.main:nowhere" in told["error"]
