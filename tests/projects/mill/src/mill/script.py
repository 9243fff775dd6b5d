"""A model that says and does what a file in the run's folder says, and writes each call down before it answers.

The calls of a task are numbered over all processes of a run, so that a new process goes on in the script.
"""

import atexit
import ctypes
import json
import os
import re
import resource
import signal
import time
from pathlib import Path

from crewai.events.types.llm_events import LLMCallType
from crewai.llms.base_llm import BaseLLM, llm_call_context


def note(file, **what):
    """One write in append mode: whole, or not there, whatever happens to the process next."""
    with Path(file).open("ab", buffering=0) as lines:
        lines.write(json.dumps({"pid": os.getpid(), "at": time.time(), **what}).encode() + b"\n")


def noted(file):
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def wait_for(file):
    while not file.exists():
        time.sleep(0.01)


def act(what, folder):
    if what == "exit":
        os._exit(3)
    elif what == "segfault":
        ctypes.string_at(0)
    elif what == "kill":  # as a system that is out of memory does
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "memory":
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (size + (64 << 20), most))
        bytearray(1 << 30)
    elif what == "wait":  # until the file is there
        wait_for(folder / "go")
    elif what == "freeze":  # every thread, not this one alone
        os.kill(os.getpid(), signal.SIGSTOP)
    elif what == "linger":  # as an exporter of traces does, which sends what it has when the process ends
        atexit.register(lambda: (time.sleep(1), note(folder / "effects", flushed=True)))
    elif what == "deaf":
        ctypes.CDLL(None).signal(
            int(signal.SIGTERM), 1
        )  # SIG_IGN: Python's own works in the main thread alone
        time.sleep(600)
    else:
        raise ValueError(what)


class MillLLM(BaseLLM):
    """Ten tokens for each call."""

    def supports_function_calling(self):
        return False

    def supports_stop_words(self):
        return False

    def get_context_window_size(self):
        return 100_000

    def call(self, messages, tools=None, callbacks=None, available_functions=None, from_task=None, from_agent=None,
             response_model=None):  # fmt: skip
        said = "\n".join(str(message.get("content")) for message in messages)
        folder, task = Path(re.search(r"folder (\S+) ", said)[1]), from_task.name
        where = {"messages": messages, "from_task": from_task, "from_agent": from_agent}
        with llm_call_context():
            self._emit_call_started_event(tools=tools, callbacks=callbacks, available_functions=None, **where)
            number = sum(call["task"] == task for call in noted(folder / "calls"))
            note(folder / "calls", task=task, said=said)
            script = json.loads((folder / "script").read_text()).get(task, [])
            line = script[number] if number < len(script) else "say"
            reply = f"Thought: I know.\nFinal Answer: {task} {number + 1}"
            if isinstance(line, list):
                reply = f"Thought: I need it.\nAction: {line[0]}\nAction Input: {json.dumps(line[1])}"
            elif line != "say":
                act(line, folder)
            self._track_token_usage_internal({"prompt_tokens": 6, "completion_tokens": 4, "total_tokens": 10})
            self._emit_call_completed_event(response=reply, call_type=LLMCallType.LLM_CALL, **where)
            return reply

    async def acall(self, *arguments, **named):
        return self.call(*arguments, **named)
