"""The server's end of a project environment: its host process, and the children forked from it.

The host (`child/boot.py`) preloads CrewAI in the project's interpreter and forks one child per job.
Each child has a socket of its own to the server (JSON lines) and a log file for its output; both
travel to the host as descriptors, so the child knows nothing of our data folder.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BOOT = Path(__file__).parent / "child" / "boot.py"
CHUNK = 256 * 1024

log = logging.getLogger("crewcast.crew")


class HostUnusable(Exception):
    """The environment cannot run crews (no CrewAI in it, a broken interpreter): text and traceback."""

    def __init__(self, text: str, detail: str = "") -> None:
        super().__init__(text)
        self.detail = detail


@dataclass(frozen=True, slots=True)
class HostInfo:
    crewai: str
    python: str
    seconds: float


class Child:
    """A forked child: `messages()` until its socket closes, then `exit_status()`."""

    def __init__(self, job_id: str, channel: socket.socket) -> None:
        self.id = job_id
        self.pid: int | None = None
        self.problem: str | None = None  # why it never started, if it never did
        self._channel = channel
        self._signal: signal.Signals | None = None  # what it was sent before it was born
        self._exited: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    async def messages(self) -> AsyncIterator[dict[str, Any]]:
        async for message in _lines(self._channel):
            yield message

    async def send(self, message: dict[str, Any]) -> None:
        """Sends one line; a child that is gone already is no error: `messages` ends."""
        try:
            await asyncio.get_running_loop().sock_sendall(self._channel, _line(message))
        except OSError as e:
            log.debug("child %s took no message: %s", self.id, e)

    async def exit_status(self, patience: float = 5.0) -> int | None:
        """The exit code, minus the signal number if killed, or None if it is not known."""
        try:
            return await asyncio.wait_for(asyncio.shield(self._exited), patience)
        except TimeoutError:
            return None

    def kill(self) -> None:
        """Ends the child at once."""
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: signal.Signals) -> None:
        """Harmless if the child has ended: its pid is the host's to reap until then."""
        if self.pid is None:
            self._signal = number
        elif not self._exited.done():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def born(self, pid: int) -> None:
        self.pid = pid
        if self._signal is not None:
            self.send_signal(self._signal)

    def close(self) -> None:
        """Closes our end; a child that still runs ends itself."""
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)
        self._channel.close()

    def ended(self, status: int | None) -> None:
        if not self._exited.done():
            self._exited.set_result(status)


class Host:
    """One host process, started when first asked for and again after it died."""

    def __init__(self, python: str, variables: Mapping[str, str]) -> None:
        self.python = python
        self.memory = False  # whether it also loads what CrewAI's memory needs, a second's work
        self._variables = dict(variables)
        self._process: asyncio.subprocess.Process | None = None
        self._control: socket.socket | None = None
        self._reader: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[HostInfo] | None = None
        self._children: dict[str, Child] = {}
        self._jobs = 0
        self._sending = asyncio.Lock()

    async def ready(self) -> HostInfo:
        """Waits until CrewAI is loaded.

        Raises HostUnusable with the reason if that cannot be.
        """
        if self._ready is None or (self._reader is not None and self._reader.done()):
            await self._start()
        assert self._ready is not None
        return await asyncio.shield(self._ready)

    async def fork(self, job: dict[str, Any], output: Path) -> Child:
        """A child at work on `job`, its stdout and stderr appended to the file `output`."""
        await self.ready()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._jobs += 1
        child = Child(f"job-{self._jobs}", ours)
        try:
            with theirs:
                await self._hand_over(child, theirs, output)
            await child.send(job)
        except BaseException:
            child.close()  # whoever asked does not get it; if it was forked, it ends itself
            raise
        return child

    async def _hand_over(self, child: Child, theirs: socket.socket, output: Path) -> None:
        log_fd = await asyncio.to_thread(os.open, output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._children[child.id] = child
        try:
            async with self._sending:
                await self._send_fork(child.id, [theirs.fileno(), log_fd])
        except BaseException as e:
            self._children.pop(child.id, None)
            if isinstance(e, OSError):
                raise HostUnusable(f"the host process of {self.python} is gone ({e})") from e
            raise
        finally:
            os.close(log_fd)

    async def close(self) -> None:
        """Ends the host; its children end with their sockets."""
        if self._control is None or self._process is None or self._reader is None:
            return
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_WR)  # the host reads the end of its control channel
        try:
            await asyncio.wait_for(asyncio.shield(self._reader), 2)
        except TimeoutError:
            self._process.kill()
            await self._reader
        self._control.close()

    async def _start(self) -> None:
        if self._control is not None:
            self._control.close()
        self._ready = asyncio.get_running_loop().create_future()
        # Somebody always asks `ready()`; a failure that nobody asked for yet is not a warning.
        self._ready.add_done_callback(lambda done: done.cancelled() or done.exception())
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            self._process = await asyncio.create_subprocess_exec(
                self.python,
                str(BOOT),
                "--control-fd",
                str(theirs.fileno()),
                *(["--memory"] if self.memory else []),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                env=self._variables,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        except OSError as e:
            ours.close()
            self._ready.set_exception(HostUnusable(f"{self.python} cannot be started: {e}"))
            return
        finally:
            theirs.close()
        self._control = ours
        self._reader = asyncio.create_task(self._read(ours, self._process, self._ready))

    async def _read(
        self,
        control: socket.socket,
        process: asyncio.subprocess.Process,
        ready: asyncio.Future[HostInfo],
    ) -> None:
        try:
            async for message in _lines(control):
                match message["op"]:
                    case "ready":
                        info = HostInfo(message["crewai"], message["python"], message["seconds"])
                        log.info("CrewAI %s loaded in %.1f s (%s)", info.crewai, info.seconds, self.python)
                        ready.set_result(info)
                    case "unusable":
                        ready.set_exception(HostUnusable(message["error"], message.get("traceback", "")))
                    case "forked" | "unforked" | "exited":
                        self._on_child(message)
        except Exception:
            log.exception("the host of %s said what was not understood; it is ended", self.python)
            process.kill()
        status = await process.wait()
        if not ready.done():
            ready.set_exception(
                HostUnusable(f"the host process of {self.python} ended (exit status {status})")
            )
        for child in self._children.values():
            child.ended(None)
        self._children.clear()

    def _on_child(self, message: dict[str, Any]) -> None:
        """What the host says of a child: forked, unforked or exited."""
        child = self._children.get(message["id"])
        if child is None:
            return
        if message["op"] == "forked":
            child.born(message["pid"])
            return
        child.problem = message.get("error")
        child.ended(message.get("status"))
        del self._children[child.id]

    async def _send_fork(self, job_id: str, descriptors: list[int]) -> None:
        assert self._control is not None
        line = _line({"op": "fork", "id": job_id})
        while True:
            try:
                socket.send_fds(self._control, [line], descriptors)
            except BlockingIOError:
                await asyncio.sleep(0.01)  # the host is reading: its buffer holds hundreds of lines
            else:
                return


async def _lines(sock: socket.socket) -> AsyncIterator[dict[str, Any]]:
    """JSON lines until the socket ends. Lines may be megabytes; reading is our back-pressure."""
    loop = asyncio.get_running_loop()
    parts: list[bytes] = []
    while True:
        try:
            chunk = await loop.sock_recv(sock, CHUNK)
        except OSError:
            return
        if not chunk:
            return
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            parts.append(line)
            yield json.loads(b"".join(parts))
            parts.clear()
        if rest:
            parts.append(rest)


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"
