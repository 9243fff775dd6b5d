"""Everybody's writes of one kind: a transaction for whatever is queued, and the next gathers meanwhile."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

import asyncpg

from crewcast.core.errors import StoreUnusable
from crewcast.store.postgres.connection import ASK_AGAIN, AWAY, IN_THE_WAY, TRIES, Database, is_away
from crewcast.store.postgres.session import Connection, PostgresSession

log = logging.getLogger("crewcast.store")

V = TypeVar("V")
R = TypeVar("R")

# Writes of one transaction: enough to pay for it, few enough that nobody waits long for it.
MOST_WRITES = 512
BUSY = 8  # a transaction of this many writes is load


class Writer(Generic[V, R]):
    """`put` from the event loop: what one caller puts is committed in that order.

    `write` takes the values of many callers and returns their results in that order. `fits` says whether a value can
    be written together with those before it. `committed` is called before the callers hear of it. Under load the next
    transaction waits `gather` seconds for more.
    """

    def __init__(
        self,
        database: Database,
        name: str,
        write: Callable[[PostgresSession, Sequence[V]], Awaitable[list[R]]],
        fits: Callable[[dict[object, V], V], bool],
        committed: Callable[[Sequence[V], Sequence[R]], None],
        gather: float,
    ) -> None:
        self._database = database
        self._write = write
        self._fits = fits
        self._committed = committed
        self._gather = gather
        self._queue: deque[tuple[V, asyncio.Future[R]]] = deque()
        self._put = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._closing = False
        self._connection: Connection | None = None
        self.commits = 0
        self.writes = 0  # that came, and of those the
        self.written = 0  # ones that were committed
        self._task = asyncio.create_task(self._run(), name=f"crewcast-{name}")

    def put(self, value: V) -> "asyncio.Future[R]":
        """Queues a write now, not when the future is awaited."""
        future: asyncio.Future[R] = self._loop.create_future()
        if self._closing:
            future.set_exception(StoreUnusable("the store is closed"))
        else:
            self._queue.append((value, future))
            self._put.set()
        return future

    async def close(self) -> None:
        """Writes what is queued, then lets go."""
        self._closing = True
        self._put.set()
        await asyncio.wait([self._task])
        if self._connection is not None:
            with suppress(*AWAY):
                await self._connection.close(timeout=2)

    async def _run(self) -> None:
        crowd = 0
        while True:
            await self._put.wait()
            if crowd >= BUSY and len(self._queue) < MOST_WRITES and not self._closing:
                await asyncio.sleep(self._gather)
            batch = self._batch()
            crowd = len(batch)
            if not self._queue and not self._closing:
                self._put.clear()
            if batch:
                await self._write_batch(batch)
            elif self._closing:
                return

    def _batch(self) -> list[tuple[V, "asyncio.Future[R]"]]:
        queue = self._queue
        taken: list[tuple[V, asyncio.Future[R]]] = []
        together: dict[object, V] = {}
        while queue and len(taken) < MOST_WRITES and self._fits(together, queue[0][0]):
            taken.append(queue.popleft())
        return taken

    async def _write_batch(self, batch: list[tuple[V, "asyncio.Future[R]"]]) -> None:
        """All in one transaction. If one of them is refused, each alone, so that only the guilty one gets its error."""
        self.writes += len(batch)
        values = [value for value, _ in batch]
        try:
            results = await self._transaction(values)
        except Exception as e:  # noqa: BLE001 - whatever it is belongs to the caller of one of these writes
            if len(batch) > 1 and not is_away(e):
                for one in batch:
                    await self._write_batch([one])
                return
            error = self._database.error(e) if isinstance(e, (asyncpg.PostgresError, *AWAY)) else e
            if error is not e:
                error.__cause__ = e
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        self.commits += 1
        self.written += len(batch)
        try:
            self._committed(values, results)
        except Exception:
            log.exception("what was committed could not be told")
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():  # its caller was cancelled meanwhile
                future.set_result(result)

    async def _transaction(self, values: Sequence[V]) -> list[R]:
        for _ in range(TRIES):
            if self._connection is None or self._connection.is_closed():
                self._connection = await self._database.connect()
            try:
                return await self._database.commit(
                    self._connection, lambda session: self._write(session, values)
                )
            except IN_THE_WAY as e:
                last: Exception = e
                await asyncio.sleep(ASK_AGAIN / 10)
        raise last
