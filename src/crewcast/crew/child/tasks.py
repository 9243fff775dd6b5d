"""Task ids that mean the same in every process, and what is known of each task of a crew."""

import threading
import time
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

from .wire import text


def stable_ids(tasks: Sequence[Any]) -> list[str]:
    """A task's name, or `task-<n>`; a repeated one gets `-2`, `-3`. CrewAI's own ids are new at every build."""
    ids: list[str] = []
    for position, task in enumerate(tasks, start=1):
        name = text(getattr(task, "name", None) or "").strip() or "task-" + str(position)
        candidate, copy = name, 2
        while candidate in ids:
            candidate, copy = name + "-" + str(copy), copy + 1
        ids.append(candidate)
    return ids


def role_of(agent: Any) -> str | None:
    role = getattr(agent, "role", None)
    # Roles written as folded YAML blocks end in a newline.
    return text(role).strip() or None if role else None


class TaskBook:
    """The tasks of one run."""

    def __init__(self, tasks: Sequence[Any]) -> None:
        self._tasks = list(tasks)
        self._order = stable_ids(tasks)
        self._by_uuid = {str(task.id): name for task, name in zip(self._tasks, self._order, strict=True)}
        self._started: dict[str, float] = {}
        self._finished: dict[str, dict[str, Any]] = {}
        # Set when a task starts, in the context that its agents, tools and threads inherit.
        self._current: ContextVar[str | None] = ContextVar("crewcast_current_task", default=None)
        self._last_started: str | None = None
        self._lock = threading.Lock()

    def overview(self) -> list[dict[str, Any]]:
        return [
            {"task_id": name, "agent": role_of(getattr(task, "agent", None))}
            for name, task in zip(self._order, self._tasks, strict=True)
        ]

    def known(self, uuid: Any) -> str | None:
        """The id of one of the crew's own tasks."""
        return self._by_uuid.get(str(uuid))

    def attributed(self, uuid: Any) -> str | None:
        """The task that an event belongs to: its own, or for delegated work and nested crews the one around it."""
        return self.known(uuid) or self._current.get() or self._last_started

    def start(self, task_id: str) -> None:
        self._current.set(task_id)
        with self._lock:
            self._started[task_id] = time.monotonic()
            self._last_started = task_id

    def seconds(self, task_id: str) -> float:
        with self._lock:
            begin = self._started.get(task_id)
        return 0.0 if begin is None else round(time.monotonic() - begin, 6)

    def finish(self, task_id: str, agent: str | None, output: str, seconds: float) -> None:
        with self._lock:
            self._finished[task_id] = {
                "task_id": task_id,
                "agent": agent,
                "output": output,
                "execution_time": seconds,
            }

    def finished(self) -> list[dict[str, Any]]:
        """What is done, in the crew's order."""
        with self._lock:
            return [self._finished[name] for name in self._order if name in self._finished]

    def any_started(self) -> bool:
        return self._last_started is not None
