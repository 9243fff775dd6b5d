"""A thread works for the task and the method that had it work: contextvars, which tell those, end at a thread's start."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

Places = list[tuple[ContextVar[Any], Any]]


def inherit(variables: Sequence[ContextVar[Any]]) -> None:
    """From now on, these variables are in a thread what they are where it was started, and in a pool's where the work
    was given to it. All others are left as they are: CrewAI keeps its own state in some.
    """
    start, submit = threading.Thread.start, ThreadPoolExecutor.submit

    def start_in_place(thread: threading.Thread) -> None:
        run = thread.run
        places = _places(variables)

        def run_in_place() -> None:
            # Whoever runs it again gets the method of its class.
            vars(thread).pop("run", None)
            _run(places, run)

        thread.run = run_in_place  # type: ignore[method-assign]
        start(thread)

    def submit_in_place(
        pool: ThreadPoolExecutor, function: Callable[..., Any], /, *args: Any, **named: Any
    ) -> Any:
        return submit(pool, _run, _places(variables), function, *args, **named)

    threading.Thread.start = start_in_place  # type: ignore[method-assign, assignment]
    ThreadPoolExecutor.submit = submit_in_place  # type: ignore[method-assign, assignment]


def _places(variables: Sequence[ContextVar[Any]]) -> Places:
    return [(variable, variable.get()) for variable in variables]


def _run(places: Places, function: Callable[..., Any], /, *args: Any, **named: Any) -> Any:
    for variable, value in places:
        variable.set(value)
    return function(*args, **named)
