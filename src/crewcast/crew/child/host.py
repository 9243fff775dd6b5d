"""One process per project environment: it imports crewai once and forks a child for each job."""

import importlib.metadata
import json
import os
import platform
import re
import selectors
import signal
import socket
import sys
import time
import traceback
from collections import deque
from typing import Any

from . import advice, birth, preload
from .wire import encode

# The oldest CrewAI that can be hosted; `make compat` runs the tests on it.
OLDEST = "1.10.1"
CHUNK = 65536
# Each fork line comes with its channel and its log; a few of them may be read at once.
MAX_DESCRIPTORS = 64


def serve(control_fd: int, *, memory: bool = False) -> int:
    """Load, then fork on request until the control socket closes."""
    os.set_inheritable(control_fd, False)
    control = socket.socket(fileno=control_fd)
    # Ctrl-C is for the server, which then closes the control socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _say(control, {"op": "loading"})
    begin = time.monotonic()
    try:
        old = _too_old()
        if old is not None:
            _say(control, {"op": "unusable", "error": old, "traceback": ""})
            return 1
        preload.preload(memory=memory)
    except (Exception, SystemExit) as error:
        _say(control, {"op": "unusable", "error": _advice(error), "traceback": traceback.format_exc()})
        return 1
    ready = {
        "op": "ready",
        "crewai": importlib.import_module("crewai").__version__,
        "python": platform.python_version(),
        "seconds": round(time.monotonic() - begin, 3),
        "threads": preload.threads(),
    }
    _say(control, ready)
    Host(control).run()
    # At once: taking three thousand modules down in order is of no use to anybody.
    os._exit(0)


def _too_old() -> str | None:
    """What to do about a CrewAI that cannot be hosted. None as well if there is none, or it is a folder on the path:
    importing it will tell.
    """
    try:
        installed = importlib.metadata.version("crewai")
    except importlib.metadata.PackageNotFoundError:
        return None
    if _release(installed) >= _release(OLDEST):
        return None
    return (
        "CrewAI "
        + installed
        + " is installed in "
        + sys.executable
        + ", but the oldest that can be hosted is "
        + OLDEST
        + ": run "
        + advice.pip("'crewai>=" + OLDEST + "'")
        + "."
    )


def _release(version: str) -> tuple[int, ...]:
    """`1.10.1` of `1.10.1rc2`, as numbers."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(number) for number in match.group().split(".")) if match else ()


def _advice(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name == "crewai":
        return "CrewAI is not installed in " + sys.executable + ": run " + advice.pip("crewai") + "."
    return (
        "CrewAI cannot be imported by "
        + sys.executable
        + " ("
        + type(error).__name__
        + ": "
        + str(error)
        + "): repair "
        "that environment, or name another with --python."
    )


def _say(control: socket.socket, message: dict[str, Any]) -> None:
    try:
        control.sendall(encode(message))
    except OSError:
        # The server is gone; nothing here outlives it.
        os._exit(1)


class Host:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._buffer = bytearray()
        self._descriptors: deque[int] = deque()
        self._children: dict[int, str] = {}

    def run(self) -> None:
        """Return when the server has closed the control socket."""
        wakeup, alarm = socket.socketpair()
        for end in (wakeup, alarm):
            end.setblocking(False)
        signal.set_wakeup_fd(alarm.fileno(), warn_on_full_buffer=False)
        # A handler must exist for the wake-up to be written.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ)
            selector.register(wakeup, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is wakeup:
                        wakeup.recv(CHUNK)
                        self._reap()
                    elif not self._receive():
                        return

    def _receive(self) -> bool:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._control, CHUNK, MAX_DESCRIPTORS)
        except OSError:
            return False
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
            self._descriptors.append(descriptor)
        self._buffer += data
        while b"\n" in self._buffer:
            line, _, rest = bytes(self._buffer).partition(b"\n")
            self._buffer[:] = rest
            message = json.loads(line)
            if message["op"] == "fork":
                self._fork(message["id"])
        return bool(data)

    def _fork(self, job_id: str) -> None:
        """Fork for the job. The kernel delivers descriptors with the first byte of their line, so they are here."""
        if len(self._descriptors) < 2:
            # It drops descriptors when this process may open no more.
            _say(
                self._control,
                {"op": "unforked", "id": job_id, "error": "the host is out of file descriptors"},
            )
            return
        channel_fd, log_fd = self._descriptors.popleft(), self._descriptors.popleft()
        sys.stdout.flush()
        sys.stderr.flush()
        host_pid = os.getpid()
        answer: dict[str, Any]
        try:
            pid = os.fork()
        except OSError as error:
            answer = {"op": "unforked", "id": job_id, "error": "fork: " + str(error)}
        else:
            if pid == 0:
                birth.live(channel_fd, log_fd, host_pid)
            self._children[pid] = job_id
            answer = {"op": "forked", "id": job_id, "pid": pid}
        os.close(channel_fd)
        os.close(log_fd)
        _say(self._control, answer)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            job_id = self._children.pop(pid, None)
            if job_id is not None:
                code = os.waitstatus_to_exitcode(status)
                _say(self._control, {"op": "exited", "id": job_id, "pid": pid, "status": code})
