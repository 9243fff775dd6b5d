"""The connections of a sender: which are free, which are late."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from crewcast.dispatch.connection import Connection
from crewcast.dispatch.limits import SenderLimits


class Pool:
    """Shelves of idle connections, one per origin, the last one used on top.

    One timer looks after all deadlines and idle times, and only while there is something to look after.
    """

    def __init__(self, limits: SenderLimits, monotonic: Callable[[], float], now: Callable[[], int]) -> None:
        self.limits = limits
        self.monotonic = monotonic
        self.now = now
        self._open: set[Connection] = set()
        self._busy: set[Connection] = set()
        self._idle: OrderedDict[Connection, None] = OrderedDict()  # the longest idle first
        self._timer: asyncio.TimerHandle | None = None
        self._tick = limits.tick
        self._closing = False
        self._all_lost = asyncio.Event()

    def take(self, shelf: list[Connection]) -> Connection | None:
        while shelf:
            connection = shelf.pop()
            del self._idle[connection]
            if connection.is_quiet():
                return connection
            connection.abort()
        return None

    def opened(self, connection: Connection) -> None:
        self._open.add(connection)

    def busy(self, connection: Connection) -> None:
        self._busy.add(connection)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._tick, self._look)

    def free(self, connection: Connection, now: float) -> None:
        """The answer is read whole: the connection can be used again."""
        self._busy.discard(connection)
        shelf = connection.idle
        if self._closing or len(shelf) >= self.limits.max_idle_per_origin:
            connection.close()
            return
        if len(self._idle) >= self.limits.max_idle:
            self._discard(next(iter(self._idle)))
        connection.idle_since = now
        self._idle[connection] = None
        shelf.append(connection)

    def dropped(self, connection: Connection) -> None:
        """The connection is on its way out."""
        self._busy.discard(connection)
        if connection in self._idle:
            self._unshelve(connection)

    def lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        if self._closing and not self._open:
            self._all_lost.set()

    def stop(self) -> None:
        """Every request in flight ends as `stopped`; nothing is kept from now on."""
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for connection in list(self._busy):
            connection.fail("stopped", "the server is stopping")

    async def close(self) -> None:
        """Ends every connection; all are gone when it returns."""
        for connection in list(self._open):
            connection.abort()
        if self._open:
            await self._all_lost.wait()

    def _look(self) -> None:
        now = self.monotonic()
        for connection in [late for late in self._busy if late.deadline <= now]:
            connection.expire()
        while self._idle:
            oldest = next(iter(self._idle))
            if oldest.idle_since + self.limits.idle > now:
                break
            self._discard(oldest)
        self._timer = None
        if self._busy or self._idle:
            self._timer = asyncio.get_running_loop().call_later(self._tick, self._look)

    def _discard(self, connection: Connection) -> None:
        self._unshelve(connection)
        connection.close()

    def _unshelve(self, connection: Connection) -> None:
        del self._idle[connection]
        connection.idle.remove(connection)
