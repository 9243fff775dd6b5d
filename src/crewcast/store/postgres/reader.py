"""Reads of lanes' next events: those that are asked for at once are one statement."""

import asyncio
from collections import deque
from collections.abc import Sequence
from functools import partial

from crewcast.core.errors import StoreError
from crewcast.core.event import Event
from crewcast.core.lane import Lane
from crewcast.store import rows
from crewcast.store.postgres.connection import Database
from crewcast.store.postgres.session import PostgresSession
from crewcast.store.session import LARGEST, Values

MOST_LANES = 128  # read by one statement


class LaneReader:
    """A dispatcher with many lanes makes thousands of small reads a second; each alone would cost a round trip."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._asked: deque[tuple[Lane, int, asyncio.Future[list[Event]]]] = deque()
        self._readers: set[asyncio.Task[None] | None] = set()

    def read(self, lane: Lane, limit: int) -> "asyncio.Future[list[Event]]":
        future: asyncio.Future[list[Event]] = asyncio.get_running_loop().create_future()
        self._asked.append((lane, limit, future))
        # Two readers: one reads while the other's rows are taken in.
        if len(self._readers) < 2:
            self._readers.add(asyncio.create_task(self._run()))
        return future

    async def _run(self) -> None:
        try:
            await self._read_all()
        finally:
            # In this turn of the loop: whom the last answers wake asks for more before the task is known to be done.
            self._readers.discard(asyncio.current_task())

    async def _read_all(self) -> None:
        while self._asked:
            taken = [self._asked.popleft() for _ in range(min(len(self._asked), MOST_LANES))]
            places = [
                (place, lane.run_id, lane.number, lane.cursor, lane.tail if lane.fixed else LARGEST, limit)
                for place, (lane, limit, _) in enumerate(taken)
            ]
            found: list[list[Event]] = [[] for _ in taken]
            try:
                for row in await self._database.read(partial(_read, places)):
                    found[row[0]].append(rows.event_from(row[1:]))
            except StoreError as e:
                for _, _, future in taken:
                    if not future.done():
                        future.set_exception(e)
                continue
            for (_, _, future), events in zip(taken, found, strict=True):
                if not future.done():
                    future.set_result(events)


async def _read(places: Sequence[Values], db: PostgresSession) -> list[Values]:
    return await db.records("lane_events", places)
