"""Each inside of CrewAI that the child leans on, one by one: an upgrade that moves it fails here, by name."""

import ast
import asyncio
import contextvars
import importlib
import inspect
import os
import re
import subprocess
import sys
import threading
import types
import warnings
import weakref
from pathlib import Path

import pytest

from crewcast.crew.child import capture, crews, events, extractors, flows, internals, preload, wire
from crewcast.crew.child.extractors import EXTRACTORS
from tests.crewai.releases import has, since

ANY_TASK = {"description": "D", "expected_output": "E"}


@pytest.fixture(scope="module", autouse=True)
def _crewai():
    """Import CrewAI as a host does; its own warnings are not ours."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, value in {**preload.FORCED, **preload.DEFAULTS}.items():
            patch.setenv(name, value)
        importlib.import_module("crewai.project")
        yield


@pytest.fixture
def bus():
    """The bus; what its handlers print in their own time belongs to the test."""
    bus = importlib.import_module("crewai.events.event_bus").crewai_event_bus
    yield bus
    bus.flush(60)


@pytest.fixture
def tap(bus, monkeypatch):
    """`events.listen` with this sink, until the test is over."""

    def tap(sink):
        events.listen(sink)

    for name in ("emit", "aemit"):
        monkeypatch.setattr(type(bus), name, getattr(type(bus), name))
    return tap


def alone(function, *arguments):
    """Call it in a context of its own, as a child's whole life is."""
    return contextvars.copy_context().run(function, *arguments)


def tool_event(kind, **fields):
    """An event that nobody prints: handlers are found by the exact class."""
    module = importlib.import_module("crewai.events.types.tool_usage_events")
    quiet = type(kind, (getattr(module, kind),), {"__module__": __name__})
    return quiet(tool_name="t", tool_args={}, agent_role="R", **fields)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", preload.REQUIRED)
def test_what_the_host_requires_exists_in_every_release(name):
    importlib.import_module(name)


# The first release that has it, and the first that has it no more. What is not here is in all of them.
HAVE = {
    "crewai.agents.agent_executor": ("1.15.29", None),
    "crewai.agents.crew_agent_executor": (None, "1.15.29"),
    "crewai.experimental.agent_executor": (None, "1.15.29"),
    "crewai.execution": ("1.15.16", None),
    "crewai.hooks.contexts": ("1.15.3", None),
    "crewai.llms.cache": ("1.14.5", None),
    "crewai.llms.providers.openai_compatible.completion": ("1.12.0", None),
    "crewai.project.crew_loader": ("1.15.0", None),
    "crewai.skills.tool": ("1.15.9", None),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", preload.USUAL)
def test_what_the_host_preloads_exists_in_the_releases_that_have_it(name):
    first, end = HAVE.get(name, (None, None))
    if (first is None or has(first)) and (end is None or not has(end)):
        importlib.import_module(name)
    else:
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(name)


@since("1.15.29", "a memory whose import takes that long")
def test_what_is_preloaded_for_a_memory_is_what_it_imports():
    code = "import sys, crewai.memory.storage.lancedb_storage; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert set(preload.MEMORY) <= set(done.stdout.split())


def test_the_sink_is_called_at_once_in_the_emitting_thread(bus, tap):
    seen = []
    tap(lambda source, event: seen.append((source, event.type, threading.get_ident())))
    bus.emit("source", tool_event("ToolUsageStartedEvent"))
    assert seen == [("source", "tool_usage_started", threading.get_ident())]


def test_the_sink_hears_a_thread_that_inherited_no_context(bus, tap):
    seen = []
    tap(lambda source, event: seen.append(event.type))
    thread = threading.Thread(target=bus.emit, args=(None, tool_event("ToolUsageStartedEvent")))
    thread.start()
    thread.join(30)
    assert seen == ["tool_usage_started"]


def test_the_sink_hears_what_is_emitted_asynchronously(bus, tap):
    seen = []
    tap(lambda source, event: seen.append(event.type))
    asyncio.run(bus.aemit(None, tool_event("ToolUsageStartedEvent")))
    assert seen == ["tool_usage_started"]


def test_an_event_has_its_place_in_the_run_when_the_sink_hears_it(bus, tap):
    seen = []
    tap(lambda source, event: seen.append((event.emission_sequence is not None, event.parent_event_id)))

    def emit():
        started = tool_event("ToolUsageStartedEvent")
        bus.emit(None, started)
        bus.emit(None, tool_event("ToolUsageErrorEvent", error=""))
        return started.event_id

    alone(emit)
    assert [placed for placed, _ in seen] == [True, True]


def test_an_exception_of_the_sink_would_reach_the_crew(bus, tap):
    """The reason why our sink catches everything."""

    def fail(source, event):
        raise RuntimeError("sink")

    tap(fail)
    with pytest.raises(RuntimeError, match="sink"):
        bus.emit(None, tool_event("ToolUsageStartedEvent"))


def test_a_waiting_sink_holds_no_lock_of_the_bus(bus, tap):
    waiting, go_on = threading.Event(), threading.Event()

    def wait(source, event):
        if not waiting.is_set():
            waiting.set()
            assert go_on.wait(30)

    tap(wait)
    slow = threading.Thread(target=alone, args=(bus.emit, None, tool_event("ToolUsageStartedEvent")))
    slow.start()
    try:
        assert waiting.wait(30)
        other = threading.Thread(target=alone, args=(bus.emit, None, tool_event("ToolUsageStartedEvent")))
        other.start()
        other.join(30)
        assert not other.is_alive()
    finally:
        go_on.set()
        slow.join(30)


@pytest.mark.parametrize("kind", ["ToolUsageFinishedEvent", "ToolUsageErrorEvent"])
def test_a_tool_result_names_its_start(bus, kind):
    fields = (
        {"started_at": 0, "finished_at": 0, "output": ""}
        if kind == "ToolUsageFinishedEvent"
        else {"error": ""}
    )
    started, ended = tool_event("ToolUsageStartedEvent"), tool_event(kind, **fields)

    def emit():
        bus.emit(None, started)
        bus.emit(None, ended)

    alone(emit)
    assert ended.started_event_id == started.event_id


def test_the_bus_can_be_flushed(bus):
    assert bus.flush(60) is True


FIELDS = {
    "crew_kickoff_started": {"crew_name", "inputs"},
    "crew_kickoff_completed": {"crew_name"},
    "crew_kickoff_failed": {"crew_name"},
    "flow_input_requested": {"method_name"},
    "human_feedback_requested": {"method_name"},
    "method_execution_started": {"method_name", "flow_name"},
    "method_execution_finished": {"method_name", "flow_name", "result"},
    "method_execution_failed": {"method_name", "flow_name", "error"},
    "task_started": {"task_id", "task"},
    "task_completed": {"task_id", "task", "output"},
    "task_failed": {"task_id", "task", "error"},
    "llm_call_completed": {"task_id", "agent_role", "response", "call_type"},
    "tool_usage_started": {"task_id", "agent_role", "agent", "tool_name", "tool_args", "event_id"},
    "tool_usage_finished": {
        "task_id",
        "agent_role",
        "tool_name",
        "tool_args",
        "output",
        "from_cache",
        "started_event_id",
    },
    "tool_usage_error": {"task_id", "agent_role", "tool_name", "tool_args", "error", "started_event_id"},
    "tool_validate_input_error": {"task_id", "agent_role", "tool_name", "tool_args", "error"},
    "tool_selection_error": {"task_id", "agent_role", "tool_name", "tool_args", "error"},
    "tool_failure_detected": {"task_id", "agent_role", "agent", "tool_name", "tool_args", "failure"},
    "agent_logs_execution": {"task_id", "agent_role", "formatted_answer"},
    "agent_reasoning_completed": {"task_id", "agent_role", "plan"},
}


def event_classes():
    base = importlib.import_module("crewai.events.base_events").BaseEvent
    queue = [base]
    while queue:
        event_class = queue.pop()
        queue += event_class.__subclasses__()
        yield event_class.model_fields["type"].default, event_class


NEW = {"tool_failure_detected": since("1.15.9", "failures of tools as events")}


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=NEW.get(kind, ())) for kind in sorted(EXTRACTORS)])
def test_an_event_has_the_fields_that_are_read(kind):
    preload._event_modules()
    classes = [
        event_class
        for name, event_class in event_classes()
        if name == kind and event_class.__module__ != __name__
    ]
    assert len(classes) == 1
    assert FIELDS[kind] - set(classes[0].model_fields) == set()


def test_the_kinds_of_llm_call():
    kinds = importlib.import_module("crewai.events.types.llm_events").LLMCallType
    assert {kind.value for kind in kinds} == {"llm_call", "tool_call"}


def test_tool_execution_error_is_emitted_nowhere():
    """If it is one day, `EXTRACTORS` needs an entry, and the pairing of calls a look."""
    folder = Path(inspect.getfile(importlib.import_module("crewai"))).parent
    emitting = [
        file
        for file in folder.rglob("*.py")
        if re.search(r"(?<!class )ToolExecutionErrorEvent\(", file.read_text())
    ]
    assert emitting == []


def test_react_tool_events_come_from_tool_usage():
    source = importlib.import_module("crewai.tools.tool_usage").ToolUsage
    assert source.__name__ == "ToolUsage"
    assert {"agent", "action"} <= set(inspect.signature(source.__init__).parameters)


def test_native_tool_events_come_from_an_executor_that_knows_its_agent():
    executor = importlib.import_module("crewai").Agent.model_fields["executor_class"].default
    # A plain class before 1.14.
    assert "agent" in getattr(executor, "model_fields", inspect.signature(executor).parameters)


def test_an_event_of_a_model_names_the_agent_that_it_was_called_for():
    """Where CrewAI calls a model for itself (memory, knowledge, converters, summaries), it passes none."""
    llm_events = importlib.import_module("crewai.events.types.llm_events")
    agent = types.SimpleNamespace(id="1", role="R")
    fields = {"call_id": "1", "response": "", "call_type": llm_events.LLMCallType.LLM_CALL}
    assert llm_events.LLMCallCompletedEvent(from_agent=agent, **fields).agent_role == "R"
    assert llm_events.LLMCallCompletedEvent(**fields).agent_role is None


@pytest.mark.parametrize(
    "module", ["crewai.memory.analyze", "crewai.memory.recall_flow", "crewai.utilities.converter"]
)
def test_what_crewai_asks_a_model_for_itself_names_no_agent(module):
    source = inspect.getsource(importlib.import_module(module))
    found = re.findall(r"llm\.a?call\((.*?)\)", source, re.DOTALL)
    assert found
    assert not any("from_agent" in arguments for arguments in found)


def test_a_plan_is_asked_for_as_the_arguments_of_this_function():
    handler = importlib.import_module("crewai.utilities.reasoning_handler")
    assert handler.FUNCTION_SCHEMA["function"]["name"] == extractors.PLAN_FUNCTION


@since("1.15.9", "failures of tools as events")
def test_arguments_that_are_no_json_have_a_code_of_their_own():
    utilities = importlib.import_module("crewai.utilities.agent_utils")
    _, error = utilities.parse_tool_call_args("{not json", "t", "1")
    assert error["tool_failure"].code == "json_decode_error"
    assert "JSON" in error["tool_failure"].message


def test_an_action_has_what_is_read_and_is_remembered_without_being_kept():
    parser = importlib.import_module("crewai.agents.parser")
    action = parser.AgentAction(thought="", tool="T", tool_input="{}", text="")
    assert (action.tool, action.tool_input, action.result) == ("T", "{}", None)
    assert weakref.ref(action)() is action
    assert not hasattr(parser.AgentFinish(thought="", output="", text=""), "tool")


def test_a_task_has_what_is_read():
    task = importlib.import_module("crewai").Task(name="n", human_input=True, **ANY_TASK)
    assert (task.name, task.human_input, task.agent) == ("n", True, None)
    assert str(task.id) != str(importlib.import_module("crewai").Task(**ANY_TASK).id)


def test_async_tasks_run_in_the_method_that_is_guarded():
    task = importlib.import_module("crewai").Task
    parameters = list(inspect.signature(task._execute_task_async).parameters)
    assert parameters == ["self", "agent", "context", "tools", "future"]
    assert "_execute_task_async" in inspect.getsource(task.execute_async)


def test_a_crew_has_what_is_read():
    crew_class = importlib.import_module("crewai").Crew
    assert {"name", "tasks", "agents", "stream", "before_kickoff_callbacks"} <= set(crew_class.model_fields)
    assert "inputs" in inspect.signature(crew_class.kickoff).parameters
    assert inspect.iscoroutinefunction(crew_class.akickoff)


@pytest.fixture
def an_agent(monkeypatch):
    """CrewAI builds the client of its model at once, and warns of its own fields."""
    monkeypatch.setenv("OPENAI_API_KEY", "none")

    def an_agent(**texts):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module("crewai").Agent(**texts, llm="openai/gpt-4o")

    return an_agent


def test_inputs_are_filled_in_where_they_are_looked_for(an_agent):
    crewai = importlib.import_module("crewai")
    names = importlib.import_module("crewai.utilities.string_utils")._VARIABLE_PATTERN.pattern
    assert names == crews.PLACEHOLDER.pattern
    texts = {field: f"a {{{field}}}" for field in crews.OF_A_TASK}
    task = crewai.Task(**texts)
    task.interpolate_inputs_and_add_conversation_history(dict.fromkeys(crews.OF_A_TASK, "X"))
    assert {getattr(task, field) for field in crews.OF_A_TASK} == {"a X"}
    texts = {field: f"a {{{field}}}" for field in crews.OF_AN_AGENT}
    agent = an_agent(**texts)
    agent.interpolate_inputs(dict.fromkeys(crews.OF_AN_AGENT, "X"))
    assert {getattr(agent, field) for field in crews.OF_AN_AGENT} == {"a X"}


@pytest.mark.parametrize("field", crews.OF_A_TASK + crews.OF_AN_AGENT)
def test_a_missing_input_is_told_from_a_value_of_a_wrong_type(field, an_agent):
    crewai = importlib.import_module("crewai")
    of_task = {"description": "D", "expected_output": "E", "output_file": "f"}
    of_agent = {"role": "R", "goal": "G", "backstory": "B"}
    (of_task if field in of_task else of_agent)[field] = "{n}"
    crew = types.SimpleNamespace(agents=[an_agent(**of_agent)], tasks=[crewai.Task(**of_task)])
    for inputs, missing in (({"other": 1}, True), ({"n": object()}, False)):
        with pytest.raises((KeyError, ValueError)) as raised:
            crewai.Crew._interpolate_inputs(crew, inputs)
        assert crews.is_missing_input(raised.value) is missing


def test_missing_inputs_are_found_in_the_method_that_is_looked_for():
    """A missing input is told from another ValueError by this frame."""
    assert callable(importlib.import_module("crewai").Crew._interpolate_inputs)
    usage = importlib.import_module("crewai.crews.utils")
    assert "crew._interpolate_inputs(" in inspect.getsource(usage.prepare_kickoff)


def test_an_output_has_what_is_read():
    output = importlib.import_module("crewai.crews.crew_output").CrewOutput(raw="r")
    assert output.raw == "r"
    assert dict(output.token_usage)["total_tokens"] == 0
    task_output = importlib.import_module("crewai.tasks.task_output").TaskOutput
    assert {"raw", "agent"} <= set(task_output.model_fields)


def test_crew_base_marks_its_classes():
    crew_base = importlib.import_module("crewai.project").CrewBase

    class Marked:
        pass

    assert crew_base(Marked).is_crew_class is True


@since("1.15.16", "execution ids")
def test_a_run_takes_our_id():
    execution = importlib.import_module("crewai.execution")
    token = execution.set_execution_uuid("ours")
    assert execution.get_execution_uuid() == "ours"
    execution.clear_execution_uuid(token)


def test_no_env_file_is_read_while_importing(tmp_path, monkeypatch):
    # Or dotenv takes this for an interactive session, and looks in the current folder alone.
    monkeypatch.setattr(sys.modules["__main__"], "__file__", __file__, raising=False)
    (tmp_path / ".env").write_text("CREWCAST_TEST_STRAY=1")
    module = tmp_path / "module.py"
    module.write_text("from dotenv import load_dotenv\nfound = load_dotenv()")
    reading = compile(module.read_text(), str(module), "exec")
    names: dict[str, object] = {}
    try:
        with preload._no_dotenv():
            exec(reading, names)
        assert names["found"] is False
        exec(reading, names)
        assert names["found"] is True
    finally:
        os.environ.pop("CREWCAST_TEST_STRAY", None)


# Flows


def flow_of(**members):
    """An object of a flow that has one method and these members."""
    flow = importlib.import_module("crewai.flow.flow")
    begin = members.pop("begin", lambda self: None)
    # Releases before 1.14.7 look a method up by it.
    begin.__name__ = "begin"
    members["begin"] = flow.start()(begin)
    return type("Lab", (flow.Flow,), members)()


def test_a_flow_has_what_is_read():
    flow = importlib.import_module("crewai.flow.flow").Flow
    assert "inputs" in inspect.signature(flow.kickoff).parameters
    made = flow_of()
    # A flow is a model since 1.13.
    there = set(getattr(flow, "model_fields", ())) or set(dir(made))
    assert {"name", "stream", "suppress_flow_events", "input_provider", "initial_state"} <= there
    assert isinstance(made._state, dict)
    assert (flows.acts(type(made)), flows.begins(made), flows.name_of(made)) == (True, True, "Lab")
    assert (flows.acts(flow), flows.begins(flow())) == (False, False)


def test_the_methods_of_a_flow_are_where_they_are_looked_for():
    made = flow_of()
    if has("1.14.7"):
        definition = made._definition if has("1.15.0") else made.flow_definition()
        assert definition.name == "Lab"
        assert set(definition.methods) == {"begin"}
        assert definition.methods["begin"].is_start is True
        assert definition.methods["begin"].human_feedback is None
        assert set(type(made).flow_definition().methods) == {"begin"}
    else:
        assert not hasattr(made, "_definition")
        assert (made._start_methods, type(made)._listeners) == (["begin"], {})
        assert set(made._methods) == {"begin"}


@since("1.15.0", "the usage of a flow")
def test_a_flow_has_the_usage_of_its_models():
    assert isinstance(flow_of().usage_metrics, importlib.import_module("pydantic").BaseModel)


def test_a_flows_own_machinery_is_known():
    """What `capture.py` lets run while a project is loaded."""
    flow = importlib.import_module("crewai.flow.flow").Flow
    agents = "crewai.agents" if has("1.15.29") else "crewai.experimental"
    machinery = [
        importlib.import_module(f"{agents}.agent_executor").AgentExecutor,
        importlib.import_module("crewai.memory.encoding_flow").EncodingFlow,
        importlib.import_module("crewai.memory.recall_flow").RecallFlow,
    ]
    assert all(capture.is_machinery(each) and issubclass(each, flow) for each in machinery)
    assert not any(map(capture.is_machinery, [flow, type(flow_of()), importlib.import_module("crewai").Crew]))


def test_a_state_without_a_default_is_an_error_of_the_flow():
    state = importlib.import_module("pydantic").create_model("State", topic=str)
    base = importlib.import_module("crewai.flow.flow").Flow[state]
    made = type("Lab", (base,), {})
    with pytest.raises(ValueError, match="topic") as caught:
        made()
    assert flows.without_default(caught.value, made) == ["topic"]


def test_inputs_that_do_not_fit_are_found_in_the_method_that_is_looked_for():
    """`job.py` tells them from other errors by this frame."""
    flow = importlib.import_module("crewai.flow.flow").Flow
    state = importlib.import_module("pydantic").create_model("State", n=(int, 0))
    made = type("Lab", (flow[state],), {})()
    with pytest.raises(ValueError, match="structured state") as caught:
        made._initialize_state({"n": "many"})
    assert flows.misfit(caught.value).startswith("n: Input should be a valid integer")
    assert "self._initialize_state(" in inspect.getsource(flow.kickoff_async)


def test_whom_a_flow_asks():
    """`flows.py` knows the terminal's providers by their names."""
    asked = flow_of()
    assert asked._resolve_input_provider().__class__.__name__ == "ConsoleProvider"
    assert flows.asks_at_terminal(asked)
    config = importlib.import_module("crewai.flow.flow_config").flow_config
    config.input_provider = object()
    try:
        assert not flows.asks_at_terminal(asked)
    finally:
        config.input_provider = None


def test_a_method_starts_and_ends_in_one_context(bus, tap):
    """By it `flows.py` knows which call of a method has ended; the method's own code is in a copy of it."""
    place: contextvars.ContextVar[str] = contextvars.ContextVar("place")
    seen = []

    def sink(source, event):
        if event.type == "method_execution_started":
            place.set(event.method_name)
        elif event.type == "method_execution_finished":
            seen.append(place.get())

    tap(sink)
    alone(flow_of(begin=lambda self: seen.append(place.get())).kickoff)
    assert seen == ["begin", "begin"]


def test_outputs_have_the_names_that_are_looked_for():
    modules = ["crewai.crews.crew_output", "crewai.tasks.task_output", "crewai.lite_agent_output"]
    names = ["CrewOutput", "TaskOutput", "LiteAgentOutput"]
    assert set(names) == wire.OUTPUTS
    for module, name in zip(modules, names, strict=True):
        assert "raw" in getattr(importlib.import_module(module), name).model_fields


@since("1.15.0", "declarative flows")
def test_a_script_in_a_declaration_names_the_variable_that_allows_it(monkeypatch):
    monkeypatch.delenv("CREWAI_ALLOW_FLOW_SCRIPT_EXECUTION", raising=False)
    declaration = {
        "schema": "crewai.flow/v1",
        "name": "Lab",
        "methods": {"one": {"start": True, "do": {"call": "script", "code": "return 1"}}},
    }
    with pytest.raises(RuntimeError, match="CREWAI_ALLOW_FLOW_SCRIPT_EXECUTION=1"):
        importlib.import_module("crewai.flow.flow").Flow.from_declaration(contents=declaration)


# What a review and a run that goes on in another process lean on


@since("1.15.29", "the executor that a review goes through")
@pytest.mark.parametrize(
    "name",
    [*internals.ASKING, *internals.RESUMING, *internals.REVIEWING, *internals.FLOWS, *internals.FEEDBACK],
)
def test_an_inside_that_a_resumed_run_leans_on_is_there(name):
    assert internals.missing((name,)) == []


def test_an_inside_that_is_not_there_is_found_out():
    names = ("crewai:Crew.gone", "crewai.gone:Crew", "crewai:Task.key", "crewai:Task.retry_count.gone")
    # Of a field the class says no more than that it is there.
    assert internals.missing(names) == ["Crew.gone", "Crew"]


@since("1.15.29", "the executor that a review goes through")
def test_the_executor_forgets_its_last_answer_before_the_provider_sets_it_up_and_runs_after():
    executor = importlib.import_module("crewai.agents.agent_executor").AgentExecutor
    for method in (executor.invoke, executor.invoke_async):
        source = inspect.getsource(method)
        kick_off = "self.kickoff" + ("_async" if method is executor.invoke_async else "") + "()"
        steps = ["state.messages.clear()", "state.is_finished = False", "self._setup_messages(", kick_off]
        places = [source.index(step) for step in steps]
        assert places == sorted(places)


@since("1.15.29", "the executor that a review goes through")
@pytest.mark.parametrize("method", ["call_llm_and_parse", "call_llm_native_tools"])
def test_an_executor_that_is_finished_calls_no_model(method):
    executor = importlib.import_module("crewai.agents.agent_executor").AgentExecutor
    [found] = [
        node
        # The module says that its file is another's.
        for node in ast.walk(ast.parse(Path(executor.invoke.__code__.co_filename).read_text("utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name == method
    ]
    # After the docstring.
    first = found.body[1]
    assert isinstance(first, ast.If)
    assert ast.unparse(first.test) == "self.state.is_finished"
    assert isinstance(first.body[0], ast.Return)
