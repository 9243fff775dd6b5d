"""Names to addresses, in threads of our own."""

import asyncio
import contextlib
import queue
import socket
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from ipaddress import ip_address
from typing import Protocol

from crewcast.dispatch.egress import Address

MOST_SLOW = 1024  # names that are remembered as slow


class Resolver(Protocol):
    async def resolve(self, host: str, port: int) -> list[Address]:
        """All addresses of `host`, the ones to be preferred first. Raises OSError if there are none."""

    def close(self) -> None: ...


Lookup = Callable[[str, int], list[Address]]
_Key = tuple[str, int]
_Job = tuple[_Key, asyncio.AbstractEventLoop, "asyncio.Future[list[Address]]"]


def getaddrinfo(host: str, port: int) -> list[Address]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    # A dict, for answers that repeat themselves: the order is the system's (RFC 6724).
    return list({ip_address(str(info[4][0])): None for info in found})


class ThreadResolver:
    """`lookup` in at most `threads` daemon threads.

    A lookup cannot be cancelled and may take half a minute. The loop's default executor would let such
    lookups starve everybody else and hold up the end of the process, so these threads are our own, and
    callers who ask for the same name at the same time share one lookup: a name whose servers are
    silent takes one thread, however many events wait for it. A name that somebody gave up on is slow
    until a lookup of it ends well, and slow names get half of the threads together: however many
    there are, the others go on. Nothing is cached beyond that.
    """

    def __init__(self, threads: int = 64, lookup: Lookup = getaddrinfo) -> None:
        self._most = threads
        self._lookup = lookup
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads = 0
        self._shared: dict[_Key, asyncio.Future[list[Address]]] = {}
        self._given: set[_Key] = set()  # lookups that are with the threads
        self._slow: OrderedDict[str, None] = OrderedDict()
        self._held: deque[_Job] = deque()  # lookups of slow names that wait for others of their kind

    async def resolve(self, host: str, port: int) -> list[Address]:
        key = (host, port)
        shared = self._shared.get(key)
        if shared is None:
            loop = asyncio.get_running_loop()
            shared = self._shared[key] = loop.create_future()
            shared.add_done_callback(lambda done: self._forget(key, done))
            job = (key, loop, shared)
            if host in self._slow:
                self._held.append(job)
                self._give_held()
            else:
                self._give(job)
        try:
            return await asyncio.shield(shared)  # who gives up does not take the answer from the others
        except asyncio.CancelledError:
            self._slow[host] = None
            self._slow.move_to_end(host)
            if len(self._slow) > MOST_SLOW:
                self._slow.popitem(last=False)
            raise

    def close(self) -> None:
        """Lets the threads end as soon as their lookups do; does not wait for them."""
        for _ in range(self._threads):
            self._jobs.put(None)

    def _give(self, job: _Job) -> None:
        self._given.add(job[0])
        if self._threads < min(self._most, len(self._given)):
            self._threads += 1
            threading.Thread(target=self._work, name="crewcast-resolver", daemon=True).start()
        self._jobs.put(job)

    def _give_held(self) -> None:
        room = max(1, self._most // 2) - sum(host in self._slow for host, _ in self._given)
        for _ in range(min(room, len(self._held))):
            self._give(self._held.popleft())

    def _forget(self, key: _Key, done: asyncio.Future[list[Address]]) -> None:
        del self._shared[key]
        self._given.discard(key)
        if not done.cancelled() and done.exception() is None:  # asked for, so that it counts as looked at
            self._slow.pop(key[0], None)
        if self._held:
            self._give_held()

    def _work(self) -> None:
        while job := self._jobs.get():
            (host, port), loop, shared = job
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
