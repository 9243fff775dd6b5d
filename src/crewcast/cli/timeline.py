"""A run as readable lines: one for each event, cut to the width of the terminal."""

import os
import shutil
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from crewcast.cli.form import one_line

JSON = dict[str, Any]

QUIET = 5  # seconds between two lines that say the same, where none can be rewritten
_COLOURS = {"task": "32", "step": "36", "crew": "1;32", "ask": "1;33", "run": "90", "error": "31"}


class Timeline:
    """Prints to `out`; with `rewrites` a wait is one line that counts. `clock` gives seconds and is asked once at the start."""

    def __init__(
        self,
        out: TextIO,
        *,
        rewrites: bool = False,
        width: int = 120,
        colour: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._out = out
        self._width = width
        self._colour = colour
        self._rewrites = rewrites
        self._clock = clock
        self._began = clock()
        self._said = ""
        self._paused = False

    @classmethod
    def of_terminal(cls) -> "Timeline":
        out = sys.stdout
        colour = out.isatty() and not os.environ.get("NO_COLOR")
        width = shutil.get_terminal_size((120, 24)).columns
        return cls(out, width=width, colour=colour, rewrites=out.isatty())

    def state(self, body: JSON) -> None:
        """The run's state, when it says something new."""
        if body["state"] == "PENDING":
            waited = body.get("waited", 0)
            if waited and not self._rewrites and waited % QUIET:
                return  # a terminal rewrites its line, a file gets one now and then
            text = _queued(body) + (f" ({waited} s)" if waited else "")
            if self._paused:
                text = "decided"
        elif body.get("stopping"):
            text = "is to stop; it ends at the crew's next step"
        elif body["state"] == "STARTED":
            total = body["progress"].get("total_tasks")
            text = "goes on" if self._paused else "started" + (f", {total} tasks" if total else "")
        elif body["state"] == "PAUSED":
            self._paused = True
            text = "waits for a person; in another terminal:"
        elif body["state"] == "REVOKED":
            text = "stopped"
        else:
            return
        if text != self._said:
            rewrite = self._rewrites and self._said.startswith("queued")
            self._said = text
            self._line("run", "", text, rewrite=rewrite)
            if body["state"] == "PAUSED":
                self._how_to_decide(body["kickoff_id"])

    def note(self, text: str) -> None:
        self._line("run", "", text)

    def event(self, event: JSON) -> None:
        payload, seq = event["payload"], str(event["seq"])
        if event["channel"] == "step":
            step = payload["step"]
            self._line("step", seq, f"{payload.get('task_id', ''):<18} {step['type']:<12} {_step_text(step)}")
            return
        if event["channel"] == "human_input":
            asked = (
                "reminder: a decision is awaited"
                if event["type"].endswith("reminder")
                else "a person is asked"
            )
            until = f" until {payload['expires_at']}" if "expires_at" in payload else ""
            self._line("ask", seq, f"{payload['task_id']:<18} {asked}{until}")
            return
        failed = payload["status"] == "error"
        text = payload.get("output") or (payload.get("result") or {}).get("output") or ""
        if failed:
            text = payload.get("error") or text
        took = f" in {payload['execution_time']:.2f} s" if "execution_time" in payload else ""
        about = f"{payload['task_id']:<18} " if event["channel"] == "task" else ""
        self._line(
            event["channel"], seq, f"{about}{payload['status']}{took}: {one_line(text)}", failed=failed
        )

    def _how_to_decide(self, kickoff_id: str) -> None:
        """Whole, however narrow the terminal is: it is to be copied."""
        for command in (f"approve {kickoff_id}", f"reject {kickoff_id} --feedback 'what to change'"):
            print(f"{'':20}crewcast {command}", file=self._out, flush=True)

    def _line(self, kind: str, seq: str, text: str, *, failed: bool = False, rewrite: bool = False) -> None:
        line = f"{self._clock() - self._began:7.2f}s  {kind:<4} {seq:>3}  {text}"
        if len(line) > self._width:
            line = line[: self._width - 1] + "…"
        if self._colour:
            line = f"\x1b[{_COLOURS['error' if failed else kind]}m{line}\x1b[0m"
        if rewrite:
            line = f"\x1b[1A\x1b[2K{line}"  # up one line, and clear it
        print(line, file=self._out, flush=True)


def _queued(body: JSON) -> str:
    if "waits_for" in body:
        return f"queued; it waits for {body['waits_for']}"
    return "queued; CrewAI is still loading" if body.get("crew_state") == "loading" else "queued"


def _step_text(step: JSON) -> str:
    tool, arguments = step.get("tool"), step.get("input")
    shown = ", ".join(f"{name}={value!r}" for name, value in (arguments or {}).items())
    match step["type"]:
        case "tool_call":
            return f"{tool}({shown})"
        case "tool_result":
            return f"{tool} -> {one_line(step.get('output', ''))}"
        case _:
            return one_line(step.get("content", ""))
