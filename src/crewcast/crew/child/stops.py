"""What ends a run early: the server's word, its silence, and a budget that is spent."""

import os
import threading
import time
from collections.abc import Sequence
from typing import Any

from .channel import ORPHANED, Channel
from .extractors import Refused
from .wire import text

# On Linux it also counts while the machine sleeps, and a lease does not sleep.
CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
LIMITS = {"tokens": "tokens", "llm_calls": "LLM calls", "tool_calls": "tool calls"}
NO_LIMIT = float("inf")


class Stopped(Refused):
    kind = "stopped"


class Spent(Refused):
    kind = "budget"


class Control:
    """Hears the server while a run is at work, and every event before it is told. Calling it raises what ends the run."""

    def __init__(
        self,
        channel: Channel,
        patience: float | None = None,
        limits: dict[str, int] | None = None,
        spent: dict[str, int] | None = None,
    ) -> None:
        self._patience = patience
        self.limits = {name: value for name, value in (limits or {}).items() if value is not None}
        self.spent = dict.fromkeys(LIMITS, 0)
        self.spent.update(spent or {})
        self._stop: str | None = None
        self._decisions: list[dict[str, Any]] = []
        self._heard = time.clock_gettime(CLOCK)
        self._told = threading.Condition()
        # By LLM: what of its tokens is counted. The object itself is kept, or another one may get its id.
        self._counted: dict[int, tuple[Any, int]] = {}
        channel.hear(self._hear)

    def __call__(self, source: Any, event: Any) -> None:
        self.check()
        if event.type.startswith("llm_call_"):
            with self._told:
                self._count_tokens(source, event)
            if event.type == "llm_call_started":
                self._take("llm_calls")
            elif event.type == "llm_call_completed" and self.spent["tokens"] > self.limits.get(
                "tokens", NO_LIMIT
            ):
                self._end("tokens")
        elif event.type == "tool_usage_started":
            self._take("tool_calls")

    def counted(self, llms: Sequence[Any]) -> None:
        """What these LLMs have used so far is a part of what was spent already."""
        for llm in llms:
            self._counted[id(llm)] = (llm, _tokens_of(llm) or 0)

    def decision(self) -> dict[str, Any]:
        """Wait for one, in this process. Raises if the run is stopped meanwhile."""
        while True:
            self.check()
            with self._told:
                if self._decisions:
                    return self._decisions.pop(0)
                if self._stop is None:
                    self._told.wait(None if self._patience is None else max(0.01, self._left()))

    def _hear(self, message: dict[str, Any]) -> None:
        with self._told:
            if message["op"] == "beat":
                # One that comes too late, as after this process was suspended, revives nothing.
                if self._patience is None or self._left() > 0:
                    self._heard = time.clock_gettime(CLOCK)
            elif message["op"] == "stop":
                self._stop = self._stop or text(message.get("reason") or "stopped")
            elif message["op"] == "decision":
                self._decisions.append(message)
            self._told.notify_all()

    def _left(self) -> float:
        assert self._patience is not None
        return self._heard + self._patience - time.clock_gettime(CLOCK)

    def check(self) -> None:
        """Raise Stopped if the server has said so; end this process if it has been silent too long."""
        if self._patience is not None and self._left() <= 0:
            # Somebody else may have the run by now: nobody takes what this process says or does.
            os._exit(ORPHANED)
        if self._stop is not None:
            raise Stopped(self._stop)

    def _take(self, what: str) -> None:
        """One more call, unless the budget has none left."""
        # A call of a model takes a token at least.
        names = ("llm_calls", "tokens") if what == "llm_calls" else (what,)
        with self._told:
            over = [name for name in names if self.spent[name] >= self.limits.get(name, NO_LIMIT)]
            if not over:
                self.spent[what] += 1
                return
        self._end(over[0])

    def _end(self, over: str) -> None:
        spent = ", ".join(str(self.spent[name]) + " " + LIMITS[name] for name in LIMITS)
        raise Spent(
            "the budget of " + str(self.limits[over]) + " " + LIMITS[over] + " is spent; in all: " + spent
        )

    def _count_tokens(self, llm: Any, event: Any) -> None:
        """By what the LLM has counted itself; one that does not count may tell with the event."""
        total = _tokens_of(llm)
        if total is not None:
            before = self._counted.get(id(llm), (llm, 0))[1]
            self._counted[id(llm)] = (llm, total)
            if total != before:
                self.spent["tokens"] += max(0, total - before)
                return
            if total:
                return
        usage = getattr(event, "usage", None)
        if isinstance(usage, dict):
            self.spent["tokens"] += int(usage.get("total_tokens") or 0)


def _tokens_of(llm: Any) -> int | None:
    usage = getattr(llm, "_token_usage", None)
    return int(usage.get("total_tokens", 0)) if isinstance(usage, dict) else None
