"""From the fork to a process of its own, and to its end."""

import atexit
import ctypes
import io
import os
import random
import resource
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from . import preload, threads
from .channel import NO_MEMORY, ORPHANED, Channel
from .job import perform

PR_SET_PDEATHSIG = 1
# How long what a crew left behind (event handlers, exit handlers) may take once its outcome is sent.
LEAVE_SECONDS = 10.0


def _death_signal() -> Callable[..., int] | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        prctl: Callable[..., int] = ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):
        return None
    return prctl


# Looked up in the host: a child of a fork had better not load libraries first.
_PRCTL = _death_signal()


def live(channel_fd: int, log_fd: int, host_pid: int) -> NoReturn:
    """The whole life of a child: it never returns into the host's code."""
    status = 70
    try:
        _follow(host_pid)
        _reset_signals()
        _settle_descriptors(channel_fd, log_fd)
        _reseed()
        preload.revive()
        threads.begin_or_raise()
        _work(Channel(socket.socket(fileno=channel_fd)))
        status = 0
    except MemoryError:
        status = NO_MEMORY
        traceback.print_exc()
    except BaseException:
        traceback.print_exc()
    finally:
        _leave(status)


def _work(channel: Channel) -> None:
    job = channel.job()
    if job is None:
        os._exit(ORPHANED)
    channel.listen()
    perform(job, channel)


def _follow(host_pid: int) -> None:
    """Die with the host, however it dies. Elsewhere than on Linux the channel's end does it."""
    if _PRCTL is not None:
        _PRCTL(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != host_pid:
        os._exit(ORPHANED)


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _settle_descriptors(channel_fd: int, log_fd: int) -> None:
    """Keep 0 (nothing to read), 1 and 2 (the log) and the channel: a crew gets hold of nobody else's."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(log_fd, 1)
    os.dup2(log_fd, 2)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    highest = limit if limit != resource.RLIM_INFINITY else 1 << 20
    os.closerange(3, channel_fd)
    os.closerange(channel_fd + 1, max(highest, channel_fd + 1))
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        # What a crew prints must not be able to fail, and is read line by line.
        how: dict[str, Any] = {"encoding": "utf-8", "errors": "backslashreplace", "line_buffering": True}
        inherited = getattr(sys, name)
        inherited.reconfigure(**how)
        if isinstance(inherited, io.TextIOWrapper):  # and not what some release of CrewAI has put around it
            log = io.BufferedWriter(_Log(descriptor, "wb", closefd=False))
            setattr(sys, name, io.TextIOWrapper(log, **how))


class _Log(io.FileIO):
    """What does not fit on a full disk is dropped: the crew goes on."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def _reseed() -> None:
    """Siblings must not draw the same numbers. Python's `uuid`, `secrets` and `tempfile` see the fork themselves."""
    random.seed()
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def _leave(status: int) -> NoReturn:
    """Let pending event handlers and exit handlers (traces, logs) finish, for a while; then go, whatever still runs."""
    deadline = threading.Timer(LEAVE_SECONDS, os._exit, (status,))
    deadline.daemon = True
    try:
        deadline.start()
        bus = sys.modules.get("crewai.events.event_bus")
        if bus is not None:
            bus.crewai_event_bus.flush(LEAVE_SECONDS)
        atexit._run_exitfuncs()  # noqa: SLF001 - sys.exit() would also join the crew's threads, for as long as they run
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)
