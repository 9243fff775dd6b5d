"""Names to addresses, in threads of our own."""

import asyncio
import contextlib
import queue
import socket
import threading
from collections.abc import Callable
from ipaddress import ip_address
from typing import Protocol

from crewcast.dispatch.egress import Address


class Resolver(Protocol):
    async def resolve(self, host: str, port: int) -> list[Address]:
        """All addresses of `host`, the ones to be preferred first. Raises OSError if there are none."""

    def close(self) -> None: ...


Lookup = Callable[[str, int], list[Address]]
_Job = tuple[str, int, asyncio.AbstractEventLoop, "asyncio.Future[list[Address]]"]


def getaddrinfo(host: str, port: int) -> list[Address]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    # A dict, for answers that repeat themselves: the order is the system's (RFC 6724).
    return list({ip_address(str(info[4][0])): None for info in found})


class ThreadResolver:
    """`lookup` in at most `threads` daemon threads.

    A lookup cannot be cancelled and may take half a minute. The loop's default executor would let such
    lookups starve everybody else and hold up the end of the process, so these threads are our own, and
    callers who ask for the same name at the same time share one lookup: a name whose servers are
    silent takes one thread, however many events wait for it. Nothing is cached beyond that.
    """

    def __init__(self, threads: int = 8, lookup: Lookup = getaddrinfo) -> None:
        self._most = threads
        self._lookup = lookup
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._started = 0
        self._shared: dict[tuple[str, int], asyncio.Future[list[Address]]] = {}

    async def resolve(self, host: str, port: int) -> list[Address]:
        key = (host, port)
        shared = self._shared.get(key)
        if shared is None:
            loop = asyncio.get_running_loop()
            shared = self._shared[key] = loop.create_future()
            shared.add_done_callback(lambda done: self._forget(key, done))
            if self._started < min(self._most, len(self._shared)):
                self._started += 1
                threading.Thread(target=self._work, name="crewcast-resolver", daemon=True).start()
            self._jobs.put((host, port, loop, shared))
        return await asyncio.shield(shared)  # who gives up does not take the answer from the others

    def close(self) -> None:
        """Lets the threads end as soon as their lookups do; does not wait for them."""
        for _ in range(self._started):
            self._jobs.put(None)

    def _forget(self, key: tuple[str, int], done: asyncio.Future[list[Address]]) -> None:
        del self._shared[key]
        if not done.cancelled():
            done.exception()  # whoever asked may have left: not an error that nobody looked at

    def _work(self) -> None:
        while job := self._jobs.get():
            host, port, loop, shared = job
            answer: list[Address] | BaseException
            try:
                answer = self._lookup(host, port)
            except Exception as e:  # noqa: BLE001 - to be raised where it is awaited; the thread lives on
                answer = e
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
                loop.call_soon_threadsafe(_answer, shared, answer)


def _answer(shared: "asyncio.Future[list[Address]]", answer: list[Address] | BaseException) -> None:
    if shared.done():
        return
    if isinstance(answer, BaseException):
        shared.set_exception(answer)
    else:
        shared.set_result(answer)
