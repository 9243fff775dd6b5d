"""What a project kicks off by itself while it is loaded: it is stopped there, and that crew or flow is the one to serve."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

KICKOFFS = (
    "kickoff",
    "kickoff_async",
    "akickoff",
    "kickoff_for_each",
    "kickoff_for_each_async",
    "akickoff_for_each",
)

# The flows that CrewAI itself is made of, by their modules: a release before 1.15.15 does not mark them.
MACHINERY = ("crewai.experimental.agent_executor", "crewai.memory.encoding_flow", "crewai.memory.recall_flow")


class KickedOff(BaseException):
    """Leaves the project's code at its kickoff. No Exception: scripts catch those and print them."""


class Captured:
    """What was about to be kicked off first, if anything was."""

    def __init__(self) -> None:
        self.value: Any = None


@contextmanager
def stopped_at_kickoff() -> Iterator[Captured]:
    """Within, a kickoff of any crew or flow runs nothing and leaves the block; `value` says whose it was."""
    captured = Captured()
    classes = [importlib.import_module("crewai").Crew, importlib.import_module("crewai.flow.flow").Flow]
    replaced: list[tuple[Any, str, Any]] = []

    # A class may have its kickoff from another that it starts from.
    for owner in dict.fromkeys(base for each in classes for base in each.__mro__):
        for name in KICKOFFS:
            if name in vars(owner):
                replaced.append((owner, name, vars(owner)[name]))
                setattr(owner, name, _stopping(vars(owner)[name], captured))
    try:
        yield captured
    except BaseException:
        # KickedOff, or what the project made of it.
        if captured.value is None:
            raise
    finally:
        for owner, name, method in replaced:
            setattr(owner, name, method)


def is_machinery(class_: type) -> bool:
    """Whether this is a flow that CrewAI itself is made of."""
    return bool(getattr(class_, "is_crewai_internal", class_.__module__ in MACHINERY))


def _stopping(method: Any, captured: Captured) -> Any:
    def stop(self: Any, *args: Any, **inputs: Any) -> Any:
        if is_machinery(type(self)):
            # An agent and a memory are flows inside; a project may use one on its way to its crew.
            return method(self, *args, **inputs)
        if captured.value is None:
            captured.value = self
        raise KickedOff

    return stop
