"""One example in a process of its own, with nothing of Crewcast's but the offline LLM:

    python example_driver.py PROJECT LLM_URL CASES

runs it once for each case `{"inputs": ..., "model": ..., "file": ...}` and prints what happened, as a line of JSON each.
"""

import importlib
import json
import os
import sys
import tomllib
import warnings
from pathlib import Path
from typing import Any

ROOT, LLM_URL, CASES = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
OUTSIDE: list[str] = []


def guard(event: str, args: tuple[Any, ...]) -> None:
    """What leaves this machine, or tries to."""
    if event == "socket.getaddrinfo" and args[0] not in ("127.0.0.1", "localhost"):
        OUTSIDE.append(str(args[0]))
    if event == "socket.connect" and isinstance(args[1], tuple) and args[1][0] != "127.0.0.1":
        OUTSIDE.append(str(args[1][0]))


def load() -> tuple[Any, dict[str, Any]]:
    """The crew or flow as CrewAI's own command loads it, with the inputs that its definition gives."""
    from crewai.flow import Flow

    project = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))
    table, package = project["tool"]["crewai"], project["project"]["name"]
    definition = table.get("definition")
    if table["type"] == "crew":
        if definition:
            load_crew: Any = importlib.import_module("crewai.project").load_crew
            return load_crew(definition)
        module = importlib.import_module(f"{package}.crew")
        return next(v for v in vars(module).values() if getattr(v, "is_crew_class", False))().crew(), {}
    if definition:
        return Flow.from_declaration(path=definition), {}
    module = importlib.import_module(f"{package}.main")
    classes = [value for value in vars(module).values() if isinstance(value, type)]
    return next(v for v in classes if issubclass(v, Flow) and v is not Flow)(), {}


class Record:
    def __init__(self) -> None:
        self.tasks: list[str] = []
        self.methods: list[str] = []
        self.tools: list[tuple[str, str]] = []
        self.errors: list[str] = []

    def __call__(self, _source: Any, event: Any) -> None:
        match event.type:
            case "task_completed":
                # The event itself has the name since 1.14.
                self.tasks.append(event.task.name)
            case "method_execution_finished" if event.flow_name != "AgentExecutor":
                self.methods.append(event.method_name)
            case "tool_usage_finished":
                self.tools.append((event.tool_name, str(event.output)))
            case kind if "error" in kind or "failed" in kind:
                self.errors.append(f"{kind}: {getattr(event, 'error', '')}")


def run(case: dict[str, Any]) -> dict[str, Any]:
    bus = importlib.import_module("crewai.events.event_bus").CrewAIEventsBus
    emit = bus.emit
    os.environ["MODEL"] = case.get("model") or "openai/gpt-4o-mini"
    record = Record()

    def emit_and_record(self: Any, source: Any, event: Any) -> Any:
        future = emit(self, source, event)
        record(source, event)
        return future

    bus.emit = emit_and_record
    try:
        loaded, defaults = load()
        result = loaded.kickoff(inputs={**defaults, **case["inputs"]})
    except ValueError as error:
        return {**vars(record), "refused": str(error)}
    finally:
        bus.emit = emit
    state = getattr(loaded, "state", None)
    return {
        **vars(record),
        "output": getattr(result, "raw", result),
        "file": Path(case["file"]).read_text("utf-8") if "file" in case else None,
        "state": state.model_dump(mode="json") if state is not None else None,
    }


sys.addaudithook(guard)
os.chdir(ROOT)
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    importlib.import_module("crewai")
    importlib.import_module("crewcast.crew.child.stub").point_at(LLM_URL)
    for each in CASES:
        print("RESULT", json.dumps({**run(each), "outside": OUTSIDE}), flush=True)
