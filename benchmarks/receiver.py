"""The cheapest subscriber there is: answers 204 to every POST and, if asked, tells when each came.

A process of its own: `with running() as receiver`. Its cost is the same for everything compared with it.
"""

import asyncio
import multiprocessing
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import cast

import httptools
import uvloop

ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


class _Protocol(asyncio.Protocol):
    def __init__(self, arrivals: list[tuple[bytes, int]]) -> None:
        self._arrivals = arrivals
        self._parser = httptools.HttpRequestParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name == b"webhook-id":
            self._id = value

    def on_message_complete(self) -> None:
        self._arrivals.append((self._id, time.time_ns() // 1000))
        self._transport.write(ANSWER)


@dataclass(frozen=True)
class Receiver:
    url: str
    _pipe: Connection

    def arrivals(self) -> list[tuple[bytes, int]]:
        """(event id, microseconds UTC) of all that came since the last call."""
        self._pipe.send("arrivals")
        found: list[tuple[bytes, int]] = self._pipe.recv()
        return found


@contextmanager
def running() -> Iterator[Receiver]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    sock = socket.create_server(("127.0.0.1", 0), backlog=512)
    process = context.Process(target=_serve, args=(sock, theirs), daemon=True)
    process.start()
    try:
        ours.recv()
        yield Receiver(f"http://127.0.0.1:{sock.getsockname()[1]}/hook", ours)
    finally:
        ours.send("stop")
        process.join(10)
        sock.close()


def _serve(sock: socket.socket, pipe: Connection) -> None:
    uvloop.run(_answer(sock, pipe))


async def _answer(sock: socket.socket, pipe: Connection) -> None:
    arrivals: list[tuple[bytes, int]] = []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Protocol(arrivals), sock=sock)
    pipe.send("listening")
    while await loop.run_in_executor(None, pipe.recv) != "stop":
        pipe.send(list(arrivals))
        arrivals.clear()
    server.close()
