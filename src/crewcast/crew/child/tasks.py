"""Task ids that mean the same in every process, and what is known of each task of a run."""

import threading
import time
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from typing import Any

from .wire import text

# What a context says that is in no task: the main thread's between two tasks, and those that began there.
NOWHERE = ""


def stable_ids(tasks: Sequence[Any], first: int = 1, taken: Iterable[str] = ()) -> list[str]:
    """A task's name, or `task-<n>` counted from `first`; one that is `taken` gets `-2`, `-3`.

    CrewAI's own ids are new at every build.
    """
    used = set(taken)
    ids: list[str] = []
    for position, task in enumerate(tasks, start=first):
        name = text(getattr(task, "name", None) or "").strip() or "task-" + str(position)
        ids.append(_free(name, used))
        used.add(ids[-1])
    return ids


def role_of(agent: Any) -> str | None:
    role = getattr(agent, "role", None)
    # Roles written as folded YAML blocks end in a newline.
    return text(role).strip() or None if role else None


def _free(name: str, used: set[str]) -> str:
    candidate, copy = name, 2
    while candidate in used:
        candidate, copy = name + "-" + str(copy), copy + 1
    return candidate


class TaskBook:
    """The tasks of one run: those of its crew, or of a flow's crews as they begin, and the flow's methods."""

    def __init__(self, tasks: Sequence[Any] = ()) -> None:
        # By id, in the order in which they became known; the value is the agent.
        self._known: dict[str, str | None] = {}
        self._crew_tasks = 0
        # Several ids for a task that its crew lists several times.
        self._by_uuid: dict[str, list[str]] = {}
        self._started: dict[str, float] = {}
        self._worked: dict[str, float] = {}
        self._open: set[str] = set()
        self._ended: set[str] = set()
        self._finished: dict[str, dict[str, Any]] = {}
        # Set when a task starts, in the context that its agents, tools and their threads inherit.
        self._current: ContextVar[str | None] = ContextVar("crewcast_current_task", default=None)
        self._current.set(NOWHERE)
        self._lock = threading.Lock()
        self.add(tasks)

    def restore(self, done: Iterable[dict[str, Any]], begun: dict[str, float] | None = None) -> None:
        """What an earlier process of this run finished, and what it began: how many seconds it had worked on that."""
        with self._lock:
            for told in done:
                task_id = told["task_id"]
                self._known[task_id] = told.get("agent", self._known.get(task_id))
                self._ended.add(task_id)
                self._finished[task_id] = told
            self._worked.update(begun or {})

    def reserve(self, ids: Iterable[str], *, crew: bool) -> None:
        """Ids that an earlier process gave: nothing else gets them. Those of a crew's tasks count as its tasks."""
        with self._lock:
            for task_id in ids:
                self._known.setdefault(task_id, None)
                self._crew_tasks += crew

    def add(self, tasks: Sequence[Any], reserved: "Sequence[str] | None" = None) -> "list[str]":
        """The tasks of one more crew, and their ids. A crew that is kicked off again has them again: they get ids of
        their own. Those that are `reserved` for them are theirs.
        """
        with self._lock:
            if reserved is None:
                ids = stable_ids(tasks, self._crew_tasks + 1, self._known)
                self._crew_tasks += len(ids)
            else:
                ids = list(reserved)
            own: dict[str, list[str]] = {}
            for task_id, task in zip(ids, tasks, strict=True):
                self._known[task_id] = role_of(getattr(task, "agent", None)) or self._known.get(task_id)
                own.setdefault(str(task.id), []).append(task_id)
            self._by_uuid.update(own)
            return ids

    def position(self, task_id: str) -> int:
        """Counted from 1, in the order in which they became known."""
        with self._lock:
            return list(self._known).index(task_id) + 1

    def claim(self, name: str, began: float, reserved: "str | None" = None) -> str:
        """An id for what is no task of a crew: a flow's method, at work since then."""
        with self._lock:
            task_id = reserved or _free(name, set(self._known))
            self._known.setdefault(task_id, None)
            self._started[task_id] = began
            self._open.add(task_id)
            return task_id

    def overview(self) -> list[dict[str, Any]]:
        return [{"task_id": task_id, "agent": agent} for task_id, agent in self._known.items()]

    def known(self, uuid: Any) -> str | None:
        """The id of one of the run's own tasks: the first of its ids that has not ended."""
        ids = self._by_uuid.get(str(uuid), [])
        return next((task_id for task_id in ids if task_id not in self._ended), ids[-1] if ids else None)

    def current(self) -> str | None:
        """The task that this code runs in, even one that has ended; NOWHERE; None where nobody can say."""
        return self._current.get()

    def place(self) -> ContextVar[str | None]:
        """What says in a context which task it runs in."""
        return self._current

    def has_started(self, task_id: str) -> bool:
        return task_id in self._started or task_id in self._ended

    def is_over(self, task_id: str) -> bool:
        return task_id in self._ended

    def left_open(self) -> list[tuple[str, str | None]]:
        """What began and did not end, each with its agent, in the order of beginning."""
        with self._lock:
            return [(task_id, self._known[task_id]) for task_id in self._started if task_id in self._open]

    def start(self, task_id: str, agent: str | None = None) -> bool:
        """The task begins in this context; its agent may have got another name by its inputs.

        Whether this is its one beginning: a callback may run the same crew again.
        """
        with self._lock:
            if self.has_started(task_id):
                return False
            self._known[task_id] = agent or self._known[task_id]
            self._started[task_id] = time.monotonic() - self._worked.get(task_id, 0.0)
            self._open.add(task_id)
        self._current.set(task_id)
        return True

    def seconds(self, task_id: str) -> float:
        with self._lock:
            begin = self._started.get(task_id)
        return 0.0 if begin is None else round(time.monotonic() - begin, 6)

    def end(self, task_id: str) -> None:
        with self._lock:
            self._open.discard(task_id)
            self._ended.add(task_id)
        if self._current.get() == task_id:
            self._current.set(NOWHERE)

    def finish(self, task_id: str, agent: str | None, output: str, seconds: float) -> None:
        self.end(task_id)
        done = {"task_id": task_id, "agent": agent, "output": output, "execution_time": seconds}
        with self._lock:
            self._finished[task_id] = {name: value for name, value in done.items() if value is not None}

    def finished(self) -> list[dict[str, Any]]:
        """What is done, in the order in which it became known: a crew's own order."""
        with self._lock:
            return [self._finished[task_id] for task_id in self._known if task_id in self._finished]

    def any_started(self) -> bool:
        return bool(self._started)
