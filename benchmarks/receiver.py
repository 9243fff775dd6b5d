"""The cheapest subscriber there is: answers 204 to every POST and, if asked, tells when each came.

A process of its own: `with running() as receiver`. Its cost is the same for everything compared with it.
"""

import asyncio
import multiprocessing
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
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


class _Silent(asyncio.Protocol):
    """Takes everything and never answers."""


@dataclass(frozen=True)
class Receiver:
    """`hanging` are URLs, each of an origin of its own, that never answer; `tls` is a port."""

    url: str
    _pipe: Connection
    hanging: tuple[str, ...] = ()
    tls: int = 0

    def arrivals(self) -> list[tuple[bytes, int]]:
        """(event id, microseconds UTC) of all that came since the last call."""
        self._pipe.send("arrivals")
        found: list[tuple[bytes, int]] = self._pipe.recv()
        return found


@contextmanager
def running(hanging: int = 0, certificate: Path | None = None) -> Iterator[Receiver]:
    """`certificate`: a PEM with its key, for `tls`."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    socks = [socket.create_server(("127.0.0.1", 0), backlog=512) for _ in range(2 + hanging)]
    process = context.Process(target=_serve, args=(socks, theirs, certificate), daemon=True)
    process.start()
    ports = [sock.getsockname()[1] for sock in socks]
    try:
        ours.recv()
        silent = tuple(f"http://127.0.0.1:{port}/hook" for port in ports[2:])
        yield Receiver(f"http://127.0.0.1:{ports[0]}/hook", ours, silent, ports[1])
    finally:
        ours.send("stop")
        process.join(10)
        for sock in socks:
            sock.close()


def _serve(socks: list[socket.socket], pipe: Connection, certificate: Path | None) -> None:
    uvloop.run(_answer(socks, pipe, certificate))


async def _answer(socks: list[socket.socket], pipe: Connection, certificate: Path | None) -> None:
    arrivals: list[tuple[bytes, int]] = []
    loop = asyncio.get_running_loop()
    plain, secure, *silent = socks
    servers = [await loop.create_server(lambda: _Protocol(arrivals), sock=plain)]
    if certificate is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)
        servers.append(await loop.create_server(lambda: _Protocol(arrivals), sock=secure, ssl=tls))
    servers += [await loop.create_server(_Silent, sock=sock) for sock in silent]
    pipe.send("listening")
    while await loop.run_in_executor(None, pipe.recv) != "stop":
        pipe.send(list(arrivals))
        arrivals.clear()
    for server in servers:
        server.close()
