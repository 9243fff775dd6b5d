"""A crew: what it takes, and how it is run."""

import importlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from . import errors
from .tasks import role_of, stable_ids
from .wire import as_text, text

# CrewAI's own pattern of what it interpolates (crewai/utilities/string_utils.py).
PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_\-]*)}")
# Where it fills them in.
OF_A_TASK = ("description", "expected_output", "output_file")
OF_AN_AGENT = ("role", "goal", "backstory")


def is_crew(value: Any) -> bool:
    return hasattr(value, "kickoff") and hasattr(value, "tasks") and not isinstance(value, type)


def inputs_of(crew: Any) -> list[str]:
    """The names in braces that CrewAI fills in, sorted.

    Its own `fetch_inputs` takes braces of JSON samples for names, misses a name inside of them, and the files.
    """
    texts = [getattr(task, name, None) for task in crew.tasks for name in OF_A_TASK]
    texts += [getattr(agent, name, None) for agent in crew.agents for name in OF_AN_AGENT]
    return sorted({name for written in texts for name in PLACEHOLDER.findall(written or "")})


def is_missing_input(error: BaseException) -> bool:
    """Whether CrewAI failed for want of an input, and not for a value that it does not take."""
    return errors.has_frame(error, "_interpolate_inputs") and "template variable" in text(error).lower()


def tasks_of(crew: Any) -> list[dict[str, Any]]:
    return [
        {
            "task_id": task_id,
            "agent": role_of(getattr(task, "agent", None)),
            "human_input": bool(getattr(task, "human_input", False)),
        }
        for task_id, task in zip(stable_ids(crew.tasks), crew.tasks, strict=True)
    ]


def refusal(crew: Any, *, asks: bool = False) -> str | None:
    """Why this crew cannot be run by a server, if so; `asks` says that people are asked what its tasks ask them."""
    ids = stable_ids(crew.tasks)
    reviewed = [
        name for name, task in zip(ids, crew.tasks, strict=True) if getattr(task, "human_input", False)
    ]
    if reviewed and not asks:
        return "human_input=True is not supported yet; it is set on: " + ", ".join(reviewed)
    return None


def kick_off(crew: Any, inputs: dict[str, Any]) -> tuple[str, Any]:
    """Run the crew; its result as text, and what it used of its LLMs."""
    # A streaming kickoff() returns an iterator and runs nothing until it is read.
    crew.stream = False
    result = crew.kickoff(inputs=inputs)
    # An after_kickoff callback may return anything.
    return as_text(result), getattr(result, "token_usage", None)


def leave_places(variables: Sequence[ContextVar[Any]]) -> None:
    """From now on, a crew leaves these variables as it found them, also one that is cancelled, of which no event tells."""
    crew_class = importlib.import_module("crewai").Crew
    kickoff, akickoff = crew_class.kickoff, getattr(crew_class, "akickoff", None)

    def kickoff_and_leave(self: Any, *args: Any, **named: Any) -> Any:
        with _kept(variables):
            return kickoff(self, *args, **named)

    async def akickoff_and_leave(self: Any, *args: Any, **named: Any) -> Any:
        assert akickoff is not None
        with _kept(variables):
            return await akickoff(self, *args, **named)

    crew_class.kickoff = kickoff_and_leave
    if akickoff is not None:
        crew_class.akickoff = akickoff_and_leave


@contextmanager
def _kept(variables: Sequence[ContextVar[Any]]) -> Iterator[None]:
    values = [variable.get() for variable in variables]
    try:
        yield
    finally:
        for variable, value in zip(variables, values, strict=True):
            variable.set(value)


def release_async_tasks() -> None:
    """CrewAI's thread for an async task hands over exceptions but no SystemExit, for which kickoff() waits for ever."""
    task_class = importlib.import_module("crewai.task").Task
    execute = getattr(task_class, "_execute_task_async", None)
    if execute is None:
        return

    def guarded(self: Any, agent: Any, context: Any, tools: Any, future: Any) -> None:
        try:
            execute(self, agent, context, tools, future)
        except BaseException as error:
            future.set_exception(error)

    task_class._execute_task_async = guarded  # noqa: SLF001 - there is no other place to catch it
