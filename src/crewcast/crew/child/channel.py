"""A child's line to its server: JSON lines both ways over one socket."""

import json
import os
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from .wire import encode

# The exit status of a child whose server went away, and of one that has no memory left to say what it does.
ORPHANED = 75
NO_MEMORY = 71
CHUNK = 65536


class Lines:
    """JSON lines from a socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = bytearray()

    def next(self) -> dict[str, Any] | None:
        """The next line; None once the other end has closed."""
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            try:
                received = self._sock.recv(CHUNK)
            except OSError:
                return None
            if not received:
                return None
            self._buffer += received
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        message: dict[str, Any] = json.loads(line)
        return message


def out_of_memory() -> NoReturn:
    """End this process: what it does is worth nothing if it cannot be told. The run goes on in another one, if it may."""
    with suppress(OSError):
        os.write(2, b"crewcast: no memory was left (MemoryError); the process ends\n")
    os._exit(NO_MEMORY)


class Channel:
    """What the threads of a crew share: whole lines out, in the order of their numbers, and the wait for an answer."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lines = Lines(sock)
        self._write_lock = threading.Lock()
        self._ending = False
        self.closed = False
        self._sent = 0
        self._acknowledged = 0
        self._acknowledgement = threading.Condition()
        self._hear: Callable[[dict[str, Any]], None] | None = None
        self._unheard: list[dict[str, Any]] = []
        self._hearing = threading.Lock()
        os.register_at_fork(after_in_child=self._forget)

    def job(self) -> dict[str, Any] | None:
        """The first line. From then on `listen` reads."""
        return self._lines.next()

    def listen(self) -> None:
        """Start the thread that reads what the server says, and ends this process when the server is gone."""
        threading.Thread(target=self._listen, name="crewcast-control", daemon=True).start()

    def hear(self, hear: Callable[[dict[str, Any]], None]) -> None:
        """What the server says beside acknowledgements goes here, also what it has said already."""
        with self._hearing:
            for message in self._unheard:
                hear(message)
            self._hear = hear

    def send(self, message: dict[str, Any]) -> None:
        with self._write_lock:
            self._write(message)

    def send_numbered(self, message: dict[str, Any]) -> int:
        """Send with a number, for `wait`."""
        with self._write_lock:
            self._sent += 1
            number = self._sent
            self._write({**message, "sync": number})
        return number

    def wait(self, number: int) -> None:
        """Return when the server has acknowledged this line.

        Acknowledging n acknowledges everything before it: the server commits a channel's lines in order.
        """
        try:
            with self._acknowledgement:
                self._acknowledgement.wait_for(lambda: self._acknowledged >= number)
        except MemoryError:
            out_of_memory()

    def send_last(self, message: dict[str, Any]) -> None:
        """Send the outcome. What threads that the crew left behind still say is dropped."""
        with self._write_lock:
            # From here on the server may close: it has heard all.
            self._ending = True
            self._write(message)
            self.closed = True

    def _forget(self) -> None:
        """In a process that the project forks: what it says is none of the run's, and the channel ends without it."""
        self._write_lock, self._acknowledgement = threading.Lock(), threading.Condition()
        self.closed, self._acknowledged = True, sys.maxsize
        self._sock.close()

    def _write(self, message: dict[str, Any]) -> None:
        if self.closed:
            return
        try:
            line = encode(message)
        except MemoryError:
            out_of_memory()
        try:
            self._sock.sendall(line)
        except OSError:
            os._exit(ORPHANED)

    def _listen(self) -> None:
        """Nobody would hear an acknowledgement, or that the server is gone, without this thread."""
        try:
            self._hear_all()
        except MemoryError:
            out_of_memory()
        except BaseException:
            traceback.print_exc()
            os._exit(70)

    def _hear_all(self) -> None:
        while True:
            message = self._lines.next()
            if message is None:
                if self._ending:
                    return
                os._exit(ORPHANED)
            if message.get("op") == "ack":
                with self._acknowledgement:
                    self._acknowledged = max(self._acknowledged, message["n"])
                    self._acknowledgement.notify_all()
                continue
            with self._hearing:
                if self._hear is None:
                    self._unheard.append(message)
                else:
                    self._hear(message)
