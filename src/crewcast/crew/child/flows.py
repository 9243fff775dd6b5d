"""A flow: what it takes, how it is run, and its methods as tasks."""

import importlib
import threading
import time
from contextvars import ContextVar
from typing import Any

from .errors import ProjectError, has_frame
from .tasks import TaskBook
from .wire import as_text, text


def is_flow(value: Any) -> bool:
    return isinstance(value, importlib.import_module("crewai.flow.flow").Flow)


def acts(flow_class: Any) -> bool:
    """Whether the class has methods of a flow. CrewAI takes them from its own body alone, none from what it starts from."""
    define = getattr(flow_class, "flow_definition", None)
    if define is None:
        # Older releases keep them here.
        return bool(getattr(flow_class, "_start_methods", None) or getattr(flow_class, "_listeners", None))
    try:
        return bool(define().methods)
    except Exception:
        # What is wrong with them is told when an object is made.
        return True


def _definition(flow: Any) -> Any:
    """What the flow consists of, where the release has such a thing; in 1.14.7 the class has it alone."""
    definition = getattr(flow, "_definition", None)
    define = getattr(flow, "flow_definition", None)
    return define() if definition is None and define is not None else definition


def begins(flow: Any) -> bool:
    """Whether a kickoff does anything: it runs the methods that start."""
    definition = _definition(flow)
    if definition is None:
        return bool(getattr(flow, "_start_methods", None))
    return any(getattr(method, "is_start", True) for method in definition.methods.values())


def name_of(flow: Any) -> str:
    definition = _definition(flow)
    return text(getattr(flow, "name", None) or getattr(definition, "name", None) or type(flow).__name__)


def inputs_of(flow: Any) -> list[str]:
    """The fields of the flow's state, sorted, without the id that CrewAI adds. A flow requires none of them."""
    state = _state(flow)
    fields = state if isinstance(state, dict) else type(state).model_fields
    return sorted(text(name) for name in fields if name != "id")


def required_of(flow: Any) -> list[str]:
    """The fields that have no value before the inputs come: a declarative flow's schema may have some."""
    state = _state(flow)
    if isinstance(state, dict):
        return []
    fields = type(state).model_fields
    return sorted(
        text(name) for name, field in fields.items() if field.is_required() and name not in vars(state)
    )


def without_default(error: BaseException, flow_class: type) -> list[str]:
    """The fields of the flow's state that it needs and has no default for, if that is why it cannot be made."""
    details = getattr(error, "errors", None)
    # A flow is a model itself, and its error has swallowed that of its state. Before 1.13 it is none.
    of_the_state = getattr(error, "title", "") == flow_class.__name__ or has_frame(
        error, "_create_initial_state"
    )
    if not callable(details) or not of_the_state:
        return []
    found = details()
    if any(each["type"] != "missing" for each in found):
        return []
    return sorted(".".join(text(part) for part in each["loc"]) for each in found)


def _state(flow: Any) -> Any:
    """The state itself: releases before 1.15 show it through a proxy that hides its model."""
    return getattr(flow, "_state", None) or flow.state


def misfit(error: BaseException) -> str:
    """Which inputs the state does not take, and why: pydantic's words, a line for each."""
    cause = error.__cause__
    details = getattr(cause, "errors", None)
    if not callable(details):
        return text(error)
    return "; ".join(
        ": ".join(
            filter(None, [".".join(map(text, each["loc"])), text(each["msg"]).removeprefix("Value error, ")])
        )
        for each in details()
    )


def asks_at_terminal(flow: Any) -> bool:
    """Whether `self.ask()` would ask the person at the terminal, and no provider of the project's."""
    provider = getattr(flow, "input_provider", None)
    if provider is None:
        config = importlib.import_module("crewai.flow.flow_config").flow_config
        provider = getattr(config, "input_provider", None)
    return provider is None or type(provider).__name__ in ("ConsoleProvider", "ConsoleInputProvider")


def takes_others(flow: Any) -> bool:
    """Whether an input that is no field of the state is kept: in a dict it is."""
    state = _state(flow)
    return isinstance(state, dict) or type(state).model_config.get("extra") == "allow"


def refusal(flow: Any, *, asks: bool = False) -> str | None:
    """Why this flow cannot be run by a server, if so; `asks` says that people are asked what its methods ask them."""
    if getattr(flow, "conversational", False) or getattr(type(flow), "conversational", False):
        return "a conversational flow takes turns with a person at a terminal; a server cannot run it"
    if asking(flow) and not asks:
        return "@human_feedback is not supported yet; it is set on: " + ", ".join(asking(flow))
    return None


def kick_off(flow: Any, inputs: dict[str, Any]) -> tuple[str, Any]:
    """Run the flow; its result as text (empty where its last method returns nothing), and what it used of its LLMs."""
    # A streaming kickoff() returns a session and runs nothing until it is read.
    flow.stream = False
    # Where events of methods are suppressed, nobody would hear of them; they cost next to nothing.
    flow.suppress_flow_events = False
    result = flow.kickoff(inputs=inputs)
    if type(result).__name__ == "HumanFeedbackPending":
        raise ProjectError(
            "the provider of @human_feedback on " + text(result.context.method_name) + " leaves the flow to code of "
            "its own that goes on with it, which a server does not have; without a provider, the run waits for a person"
        )  # fmt: skip
    return as_text(result), getattr(flow, "usage_metrics", None)


def methods_of(flow: Any) -> dict[str, Any]:
    definition = _definition(flow)
    methods = getattr(definition, "methods", None) or getattr(flow, "_methods", {})
    return {text(name): method for name, method in methods.items()}


def asking(flow: Any) -> list[str]:
    """The methods whose output a person is to judge."""
    return [name for name, method in methods_of(flow).items() if _asks_a_person(method)]


def _asks_a_person(method: Any) -> bool:
    """By the flow's definition, or in older releases by the mark of the decorator."""
    return (
        getattr(method, "human_feedback", None) is not None
        or getattr(method, "__human_feedback_config__", None) is not None
    )


class MethodCall:
    """One execution of a flow's method. It gets a task id when it proves to be a task: its own step, or its end."""

    def __init__(self, name: str, number: int, book: TaskBook) -> None:
        self.name = name
        # It is executed for the how many-th time.
        self.number = number
        # An earlier process has told its end.
        self.told = False
        # What a person has judged of it: the output in a tuple.
        self.judged: tuple[Any] | None = None
        # What an earlier process called it, and how long it worked there.
        self.reserved: str | None = None
        self.worked = 0.0
        self.ran_crew = False
        self.stepped = False
        self.agents: set[str] = set()
        self._told_failures: set[str] = set()
        self._book = book
        self._began = time.monotonic()
        self._id: str | None = None
        self._lock = threading.Lock()

    def task_id(self) -> str:
        with self._lock:
            if self._id is None:
                self._id = self._book.claim(self.name, self._began, self.reserved)
            return self._id

    def claimed(self) -> str | None:
        """Its id, if it has one."""
        return self._id

    def agent(self) -> str | None:
        """The one agent that worked in the method itself; of several, none stands for it."""
        return next(iter(self.agents)) if len(self.agents) == 1 else None

    def seconds(self) -> float:
        return round(time.monotonic() - self._began + self.worked, 6)

    def task_failed(self, error: str) -> None:
        """A task inside has told this failure."""
        self._told_failures.add(error)

    def is_told(self, error: BaseException | str) -> bool:
        """Whether a task inside has told the failure that ended the method, as it is or as the cause of another."""
        link: Any = error
        for _ in range(20):
            if link is None:
                return False
            if text(link) in self._told_failures:
                return True
            link = getattr(link, "__cause__", None) or getattr(link, "__context__", None)
        return False


class Methods:
    """The methods of the run's flow that are being executed; several may be, side by side."""

    def __init__(self, book: TaskBook) -> None:
        self._book = book
        self._current: ContextVar[MethodCall | None] = ContextVar("crewcast_current_method", default=None)
        # How many crews this code runs in, one inside the other.
        self._crews: ContextVar[int] = ContextVar("crewcast_crews", default=0)
        self._open: list[MethodCall] = []
        self._numbers: dict[str, int] = {}
        self.any_began = False
        self._lock = threading.Lock()

    def start(self, name: str) -> MethodCall:
        with self._lock:
            self._numbers[name] = self._numbers.get(name, 0) + 1
            call = MethodCall(name, self._numbers[name], self._book)
            self._open.append(call)
            self.any_began = True
        self._current.set(call)
        return call

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

    def is_open(self, call: MethodCall) -> bool:
        with self._lock:
            return call in self._open

    def places(self) -> list[ContextVar[Any]]:
        """What says in a context which method and crew it runs in."""
        return [self._current, self._crews]

    def enter_crew(self) -> None:
        self._crews.set(self._crews.get() + 1)

    def leave_crew(self) -> None:
        self._crews.set(max(0, self._crews.get() - 1))

    def in_crew(self) -> bool:
        """Whether this code is a crew's, not the method's own."""
        return self._crews.get() > 0

    def end(self, name: str) -> MethodCall | None:
        call = self._current.get()
        with self._lock:
            if call is None or call not in self._open or call.name != name:
                return None
            self._open.remove(call)
        self._current.set(None)
        return call
