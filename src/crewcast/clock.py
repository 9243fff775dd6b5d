"""Time as an argument. Only `server.py` makes a real clock; tests step a manual one."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from crewcast.core.backoff import SECOND
from crewcast.core.errors import StoreError

log = logging.getLogger("crewcast")

SYNCHRONISE_EVERY = 5 * SECOND
DRIFT = 2000  # a clock is trusted to run right to one part in so many


class Clock(Protocol):
    def now(self) -> int:
        """Microseconds since 1970 UTC."""

    def of_wall(self, moment: int) -> int:
        """What this clock showed when the machine's own showed `moment`, and never more than it shows now."""

    async def wait(self, event: asyncio.Event, timeout: int | None) -> bool:  # noqa: ASYNC109 - the seam itself
        """Until `event` is set (True) or `timeout` microseconds have passed (False)."""


def _wall() -> int:
    return time.time_ns() // 1000


class RealClock:
    def now(self) -> int:
        return _wall()

    def of_wall(self, moment: int) -> int:
        now = self.now()
        return min(now, moment + now - _wall())

    async def wait(self, event: asyncio.Event, timeout: int | None) -> bool:  # noqa: ASYNC109
        if timeout is None:
            return await event.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0, timeout) / 1_000_000):
                return await event.wait()
        return event.is_set()


def since_boot() -> int:
    """Microseconds that never jump, counted through the sleep of the machine where that can be."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)) // 1000


class StoreClock(RealClock):
    """The store's clock, where many nodes share it: this machine's own count of time, set by what `read` tells.

    What the machine's wall clock says, and how it jumps, changes nothing. `now` is right to within half the time
    that the best of the last readings took. `synchronise` comes first, then `run` in a task.
    """

    def __init__(self, read: Callable[[], Awaitable[int]], steady: Callable[[], int] = since_boot) -> None:
        self._read = read
        self._steady = steady
        self._ahead: int | None = None  # of `steady`
        self._read_at = 0
        self._off = 0  # by at most so much, when it was read

    def now(self) -> int:
        if self._ahead is None:
            raise RuntimeError("the clock was not synchronised")
        return self._steady() + self._ahead

    async def synchronise(self) -> None:
        """Raises StoreError if the store does not tell the time."""
        before = self._steady()
        told = await self._read()
        after = self._steady()
        off = (after - before) // 2
        # A reading that took long says less than an earlier one, unless that is so old that it may have drifted.
        if self._ahead is None or off <= self._off + (after - self._read_at) // DRIFT:
            self._ahead, self._read_at, self._off = told - before - off, after, off

    async def run(self) -> None:
        """Until cancelled. An error of the store is waited out; the clock goes on meanwhile."""
        never = asyncio.Event()
        while True:
            await self.wait(never, SYNCHRONISE_EVERY)
            try:
                await self.synchronise()
            except StoreError as e:
                log.debug("the store does not tell the time: %s", e)


class ManualClock:
    """The seam's fake: time moves only by `advance`, and whoever waited for that moment goes on."""

    def __init__(self, now: int = 1_750_000_000_000_000) -> None:
        self._now = now
        self._moved = asyncio.Event()

    def now(self) -> int:
        return self._now

    def of_wall(self, moment: int) -> int:
        return min(self._now, moment + self._now - _wall())

    def advance(self, microseconds: int) -> None:
        self._now += microseconds
        self._moved.set()
        self._moved = asyncio.Event()

    async def wait(self, event: asyncio.Event, timeout: int | None) -> bool:  # noqa: ASYNC109
        until = None if timeout is None else self._now + timeout
        while not event.is_set() and (until is None or self._now < until):
            waits = [asyncio.ensure_future(event.wait()), asyncio.ensure_future(self._moved.wait())]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
        return event.is_set()
