"""A thread works for the task and the method that had it work: contextvars, which tell those, end at a thread's start."""

import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

Places = list[tuple[ContextVar[Any], Any]]
BOOTSTRAP = "_bootstrap"  # what a new thread calls first; Python looks it up in the thread
LOOK_EVERY = 0.2  # seconds; a thread begins within microseconds


def begin_or_raise() -> None:
    """From now on, `start` raises MemoryError for a thread that ended before it began. Python itself waits for ever for
    one that found no memory for its first call (python/cpython#140746).
    """
    start = threading.Thread.start

    def start_or_raise(thread: threading.Thread) -> None:
        begun = vars(thread).get("_started")
        if type(begun) is threading.Event and not begun.is_set() and hasattr(thread, BOOTSTRAP):
            vars(thread)["_started"] = _Begun(thread)
        try:
            start(thread)
        except BaseException:
            getattr(threading, "_limbo", {}).pop(thread, None)
            raise
        finally:
            vars(thread).pop(BOOTSTRAP, None)

    threading.Thread.start = start_or_raise  # type: ignore[method-assign, assignment]


class _Boot:
    """What a new thread calls first. Python lets go of it when the thread has ended, however that was."""

    def __init__(self, boot: Callable[[], None]) -> None:
        self._boot = boot

    def __call__(self) -> None:
        self._boot()


class _Begun(threading.Event):
    """Whether a thread has begun, for the one that starts it."""

    def __init__(self, thread: threading.Thread) -> None:
        super().__init__()
        boot = _Boot(getattr(thread, BOOTSTRAP))
        self._boot = weakref.ref(boot)
        vars(thread)[BOOTSTRAP] = boot
        self._thread: threading.Thread | None = thread

    def wait(self, timeout: float | None = None) -> bool:
        if timeout is not None:
            return super().wait(timeout)
        if self._thread is not None:
            # From here on nobody but the thread itself has it.
            vars(self._thread).pop(BOOTSTRAP, None)
            self._thread = None
        while not super().wait(LOOK_EVERY):
            if self._boot() is None and not self.is_set():
                raise MemoryError("a thread found no memory to begin with")
        return True


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
