"""A flow: what it takes, how it is run, and its methods as tasks."""

import importlib
import threading
import time
from contextvars import ContextVar
from typing import Any

from .tasks import TaskBook
from .wire import as_text, text


def is_flow(value: Any) -> bool:
    return isinstance(value, importlib.import_module("crewai.flow.flow").Flow)


def name_of(flow: Any) -> str:
    return text(getattr(flow, "name", None) or type(flow).__name__)


def inputs_of(flow: Any) -> list[str]:
    """The fields of the flow's state, sorted, without the id that CrewAI adds. A flow requires none of them."""
    state = flow.state
    fields = state if isinstance(state, dict) else type(state).model_fields
    return sorted(text(name) for name in fields if name != "id")


def takes_others(flow: Any) -> bool:
    """Whether an input that is no field of the state is kept: in a dict it is."""
    state = flow.state
    return isinstance(state, dict) or type(state).model_config.get("extra") == "allow"


def refusal(flow: Any) -> str | None:
    """Why this flow cannot be run by a server, if so."""
    if getattr(flow, "conversational", False) or getattr(type(flow), "conversational", False):
        return "a conversational flow takes turns with a person at a terminal; a server cannot run it"
    asking = [name for name, method in _methods(flow).items() if _asks_a_person(method)]
    if asking:
        return "@human_feedback is not supported yet; it is set on: " + ", ".join(asking)
    return None


def kick_off(flow: Any, inputs: dict[str, Any]) -> tuple[str, Any]:
    """Run the flow; its result as text (empty where its last method returns nothing), and what it used of its LLMs."""
    # A streaming kickoff() returns a session and runs nothing until it is read.
    flow.stream = False
    # Where events of methods are suppressed, nobody would hear of them; they cost next to nothing.
    flow.suppress_flow_events = False
    output = as_text(flow.kickoff(inputs=inputs))
    return output, getattr(flow, "usage_metrics", None)


def _methods(flow: Any) -> dict[str, Any]:
    definition = getattr(flow, "_definition", None)
    methods = getattr(definition, "methods", None) or getattr(flow, "_methods", {})
    return {text(name): method for name, method in methods.items()}


def _asks_a_person(method: Any) -> bool:
    """By the flow's definition, or in older releases by the mark of the decorator."""
    return (
        getattr(method, "human_feedback", None) is not None
        or getattr(method, "__human_feedback_config__", None) is not None
    )


class MethodCall:
    """One execution of a flow's method. It gets a task id when it proves to be a task: its own step, or its end."""

    def __init__(self, name: str, book: TaskBook) -> None:
        self.name = name
        self.ran_crew = False
        self.task_failed = False
        self.stepped = False
        self._book = book
        self._began = time.monotonic()
        self._id: str | None = None
        self._lock = threading.Lock()

    def task_id(self) -> str:
        with self._lock:
            if self._id is None:
                self._id = self._book.claim(self.name)
            return self._id

    def seconds(self) -> float:
        return round(time.monotonic() - self._began, 6)


class Methods:
    """The methods of the run's flow that are being executed; several may be, side by side."""

    def __init__(self, book: TaskBook) -> None:
        self._book = book
        self._current: ContextVar[MethodCall | None] = ContextVar("crewcast_current_method", default=None)
        self._open: list[MethodCall] = []
        self._lock = threading.Lock()

    def start(self, name: str) -> None:
        call = MethodCall(name, self._book)
        self._current.set(call)
        with self._lock:
            self._open.append(call)

    def current(self) -> MethodCall | None:
        """The one that this code runs in; without a context, the newest that has not ended."""
        call = self._current.get()
        with self._lock:
            if call in self._open:
                return call
            return self._open[-1] if self._open and call is None else None

    def inside(self) -> bool:
        """Whether the context says which method this code runs in."""
        with self._lock:
            return self._current.get() in self._open

    def end(self, name: str) -> MethodCall | None:
        call = self._current.get()
        with self._lock:
            if call is None or call not in self._open or call.name != name:
                return None
            self._open.remove(call)
        self._current.set(None)
        return call
