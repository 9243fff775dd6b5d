"""Each inside of CrewAI that the child leans on, one by one: an upgrade that moves it fails here, by name."""

import asyncio
import contextvars
import importlib
import inspect
import os
import re
import threading
import warnings
from pathlib import Path

import pytest

from crewcast.crew.child import events, preload
from crewcast.crew.child.events import EXTRACTORS
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
    bus.flush(30)


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
    assert bus.flush(5) is True


FIELDS = {
    "crew_kickoff_started": {"crew_name", "inputs"},
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
    "agent_reasoning_completed": {"task_id", "agent_role", "plan"},
}


def event_classes():
    base = importlib.import_module("crewai.events.base_events").BaseEvent
    queue = [base]
    while queue:
        event_class = queue.pop()
        queue += event_class.__subclasses__()
        yield event_class.model_fields["type"].default, event_class


@pytest.mark.parametrize("kind", sorted(EXTRACTORS))
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
    assert {"name", "tasks", "stream", "before_kickoff_callbacks"} <= set(crew_class.model_fields)
    assert "inputs" in inspect.signature(crew_class.kickoff).parameters
    assert callable(crew_class.fetch_inputs)


def test_missing_inputs_are_found_in_the_method_that_is_looked_for():
    """`job.py` tells a missing input from another ValueError by this frame."""
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


def test_no_env_file_is_read_while_importing(tmp_path):
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
