"""Time as an argument. Only `server.py` makes a real clock; tests step a manual one."""

import asyncio
import contextlib
import time
from typing import Protocol


class Clock(Protocol):
    def now(self) -> int:
        """Microseconds since 1970 UTC."""

    async def wait(self, event: asyncio.Event, timeout: int | None) -> bool:  # noqa: ASYNC109 - the seam itself
        """Until `event` is set (True) or `timeout` microseconds have passed (False)."""


class RealClock:
    def now(self) -> int:
        return time.time_ns() // 1000

    async def wait(self, event: asyncio.Event, timeout: int | None) -> bool:  # noqa: ASYNC109
        if timeout is None:
            return await event.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0, timeout) / 1_000_000):
                return await event.wait()
        return event.is_set()


class ManualClock:
    """The seam's fake: time moves only by `advance`, and whoever waited for that moment goes on."""

    def __init__(self, now: int = 1_750_000_000_000_000) -> None:
        self._now = now
        self._moved = asyncio.Event()

    def now(self) -> int:
        return self._now

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
