"""Each started tool call ends in exactly one result, whatever CrewAI emits."""

import re
import threading
import weakref
from typing import Any, NamedTuple


class Call(NamedTuple):
    event_id: str
    mode: str
    tool: str
    args: Any
    task_id: str | None
    agent: str | None


class OpenCalls:
    """The tool calls that have started and not ended."""

    def __init__(self) -> None:
        self._open: dict[str, Call] = {}
        self._refusals: "weakref.WeakSet[Any]" = weakref.WeakSet()
        # By identity: an action is a dataclass, which has no hash.
        self._acted: "weakref.WeakValueDictionary[int, Any]" = weakref.WeakValueDictionary()
        self._lock = threading.Lock()

    def start(self, call: Call) -> None:
        with self._lock:
            self._open[call.event_id] = call

    def end(self, started_event_id: str | None, tool: str, task_id: str | None) -> Call | None:
        """The call that a result belongs to; None if it has its result already.

        CrewAI pairs events by scope, and a scope that something inside left unbalanced names another event: then
        it is the newest open call of that tool in that task.
        """
        with self._lock:
            call = self._open.pop(started_event_id or "", None)
            if call is not None:
                return call
            for candidate in reversed(list(self._open.values())):
                if candidate.task_id == task_id and _sanitized(candidate.tool) == _sanitized(tool):
                    return self._open.pop(candidate.event_id)
            return None

    def abandon(self, task_id: str | None) -> list[Call]:
        """End the calls of a task that is over (a time limit, a tool that raised SystemExit); of all tasks if None."""
        with self._lock:
            left = [call for call in self._open.values() if task_id is None or call.task_id == task_id]
            for call in left:
                del self._open[call.event_id]
            return left

    def report(self, action: Any) -> bool:
        """Whether nothing has been said of this action of a ReAct agent so far."""
        if action is None:
            return False
        with self._lock:
            first = id(action) not in self._acted
            self._acted[id(action)] = action
            return first

    def refuse(self, usage: Any) -> bool:
        """Whether this is the first refusal of a call that never started.

        CrewAI parses one answer up to eight times, and reports an unknown tool each time.
        """
        with self._lock:
            first = usage not in self._refusals
            self._refusals.add(usage)
            return first


def _sanitized(tool: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", tool.lower()).strip("_")
