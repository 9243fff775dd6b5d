"""The verbs of `protocol.Store` over one PostgreSQL database."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

from msgspec.structs import replace

from crewcast.core.backoff import SECOND
from crewcast.core.event import Event
from crewcast.core.lane import Lane
from crewcast.core.review import Review
from crewcast.core.run import Run, RunState
from crewcast.store import rows
from crewcast.store.hints import Hinted, moved
from crewcast.store.postgres import appends, settlements
from crewcast.store.postgres.connection import Database
from crewcast.store.postgres.hints import Hints
from crewcast.store.postgres.keys import KnownKeys
from crewcast.store.postgres.operating import Operating
from crewcast.store.postgres.partitions import Partitions, day_of
from crewcast.store.postgres.reader import LaneReader
from crewcast.store.postgres.schema import migrate
from crewcast.store.postgres.session import PostgresSession
from crewcast.store.postgres.settlements import GiveBack, Outcome
from crewcast.store.postgres.waiting import Waiting
from crewcast.store.postgres.writer import Writer
from crewcast.store.protocol import (
    KEYS_KEPT_FOR,
    NO_ENTRIES,
    NO_LIMITS,
    Created,
    Hint,
    HintListener,
    IdempotencyKey,
    Settlement,
)
from crewcast.store.reading import Reading
from crewcast.store.session import LARGEST, Values
from crewcast.store.tail import Tail
from crewcast.store.verbs import journal as journals
from crewcast.store.verbs import queue
from crewcast.store.verbs.append import Append
from crewcast.store.verbs.claims import due_lanes

# Every append wakes the dispatcher, and has mostly moved lanes that it holds: without news it looks for lanes again
# after so many microseconds, and however much news there is, not sooner than after so many seconds.
LOOK_AGAIN = SECOND // 4
CLAIM_PACE = 0.01


class PostgresStore(Waiting, Operating, Reading):
    """Implements `protocol.Store`; the promises are told there. One per node, any number to a database."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.hints = Hints(database, self._foreign)
        self._known = KnownKeys()
        # When nothing was due, for whom and until when by their time, and what will be next; whether lanes that nobody
        # holds have moved since.
        self._looked: tuple[float, str, int, int | None] | None = None
        self._moved = self._moves = False
        self._partitions = Partitions(database)
        self._lane_reader = LaneReader(database)
        # The newest events of runs that this node has worked on from their beginning, and nobody else.
        self._tail = Tail()
        self._ours: set[str] = set()
        self.appends: Writer[Append, bool] = Writer(
            database,
            "appends",
            lambda db, values: appends.append(db, self._known, self._moving, values),
            appends.fits,
            self._appended,
            gather=0.001,
        )
        self.settlements: Writer[Outcome, bool] = Writer(
            database,
            "settlements",
            lambda db, values: settlements.write(db, self._known, values),
            settlements.fits,
            self._settled,
            gather=0.015,  # they are seldom waited for
        )

    @classmethod
    async def open(cls, url: str) -> Self:
        """Connects to a database, and makes or migrates the schema.

        Raises StoreUnusable.
        """
        database = await Database.open(url)
        try:
            await migrate(database)
        except BaseException:
            await database.close()
            raise
        return cls(database)

    async def close(self) -> None:
        await self.appends.close()
        await self.settlements.close()
        await self.hints.close()
        await self.database.close()

    async def _all(self, query: str, **params: Any) -> list[Values]:
        return await self.database.read(lambda db: db.all(query, params))

    def listen(self, listener: HintListener) -> Any:
        return self.hints.listen(listener)

    def _foreign(self, hint: Hint, about: str) -> None:
        """Another node has changed something."""
        if hint is Hint.EVENTS:
            self._let_go(about)
        else:
            self._stale()

    def _moving(self) -> None:
        """An append that is not committed yet gives work to lanes that nobody holds."""
        self._moves = True

    def _stale(self) -> None:
        """What is due may be something else than was seen."""
        self._moved = True

    def _settled(self, values: Sequence[Outcome], _results: Sequence[bool]) -> None:
        if not self._moved:
            self._moved = any(
                isinstance(value, GiveBack) or value.release or value.split is not None for value in values
            )

    def _let_go(self, run_id: str) -> None:
        """From now on the run's events are read from the database: somebody else may add to them."""
        self._stale()
        self._ours.discard(run_id)
        self._tail.forget(run_id)

    def _appended(self, values: Sequence[Append], results: Sequence[bool]) -> None:
        if self._moves:
            self._moved, self._moves = True, False
        hints: list[Hinted] = []
        for value, written in zip(values, results, strict=True):
            run = value.run
            if not written:
                self._let_go(run.id)
                continue
            if run.id in self._ours:
                self._tail.add(run.id, value.events)
                if run.state is not RunState.RUNNING:
                    self._ours.discard(run.id)
                    if not run.state.ended:  # others may go on with it
                        self._tail.forget(run.id)
            hints += moved(run)
        self.hints.tell(hints)

    # --- runs -------------------------------------------------------------------------------

    async def create_run(
        self,
        run: Run,
        lanes: Sequence[Lane],
        key: IdempotencyKey | None,
        now: int,
        journal: Mapping[str, bytes | None] = NO_ENTRIES,
    ) -> Created:
        day = day_of(run.created_at)

        async def create(db: PostgresSession) -> Created:
            await self._partitions.ensure(db, day)
            if key is not None and (earlier := await _remember(db, key, run.id, now)) is not None:
                return earlier
            row = await db.first("create_run", {**rows.run_columns(run), "day": day})
            assert row is not None
            number = row[0]
            await db.write("create_kickoff", rows.kickoff_columns(number, run))
            await db.write_rows("create_lanes", [rows.lane_row(number, lane) for lane in lanes])
            await journals.write(db, [(number, journal)])
            return Created(run.id)

        created = await self.database.transaction(create)
        self._partitions.made(day)
        if not created.replayed:
            self.hints.tell([(Hint.QUEUED, run.id)])
        return created

    async def claim_runs(
        self,
        crews: Sequence[str],
        limit: int,
        lease_token: str,
        now: int,
        lease: int,
        *,
        per_crew: Mapping[str, int] = NO_LIMITS,
        per_token: int | None = None,
    ) -> list[Run]:
        value = queue.Claim(limit, lease_token, now, now + lease, crews, per_crew, per_token)

        async def claim(db: PostgresSession) -> list[tuple[int, Run]]:
            if per_token is not None:
                await db.all("limit_claims", {})
            return await queue.claim(db, value)

        claimed = await self.database.transaction(claim) if crews and limit > 0 else []
        for key, run in claimed:
            self._known.note(run.id, key)
            if run.seq == 0:
                self._ours.add(run.id)
            else:
                self._let_go(run.id)
        self.hints.tell((Hint.EVENTS, run.id) for _, run in claimed)
        return [run for _, run in claimed]

    async def renew_runs(self, lease_token: str, until: int) -> list[str]:
        values = {"token": lease_token, "until": until}
        return [run_id for (run_id,) in await self._written("renew_runs", values)]

    def append(
        self,
        run: Run,
        events: Sequence[Event],
        lease_token: str,
        journal: Mapping[str, bytes | None] = NO_ENTRIES,
        review: Review | None = None,
    ) -> asyncio.Future[bool]:
        return self.appends.put(Append(run, events, lease_token, journal, review))

    async def adopt(self, run: Run, lease_token: str, until: int) -> bool:
        self._let_go(run.id)
        values = {"id": run.id, "seen": run.lease_token, "token": lease_token, "until": until}
        return await self.database.transaction(lambda db: db.write("adopt_run", values)) == 1

    # --- lanes ------------------------------------------------------------------------------

    async def claim_lanes(
        self,
        limit: int,
        lease_token: str,
        now: int,
        lease: int,
        busy: Sequence[str] = (),
        per_origin: int | None = None,
    ) -> list[Lane]:
        if self._looked is not None:
            looked_at, holder, known_until, _ = self._looked
            age = time.monotonic() - looked_at
            if not self._moved and holder == lease_token and age * SECOND < LOOK_AGAIN and now < known_until:
                return []
            await asyncio.sleep(max(0.0, CLAIM_PACE - age))
        self._looked, self._moved = None, False
        ((due, lapsed, lapses),) = await self._all("look", now=now, token=lease_token)
        if not lapsed and (due is None or due > now):
            known_until = min(now + LOOK_AGAIN, due or LARGEST, lapses or LARGEST)
            self._looked = time.monotonic(), lease_token, known_until, due
            return []
        until = now + lease
        found: dict[tuple[str, int], int] = {}

        def read(row: Values) -> Lane:
            lane = rows.lane_from(row[1:])
            found[lane.run_id, lane.number] = row[0]
            return lane

        async def claim(db: PostgresSession) -> list[Lane]:
            lanes = await due_lanes(db, read, limit, lease_token, now, busy, per_origin)
            if lanes:
                await db.write("hold_lanes", {"token": lease_token, "until": until})
                places = sorted((found[lane.run_id, lane.number], lane.number, lease_token) for lane in lanes)
                await db.write_rows("claim_lanes", places)
            return lanes

        lanes = await self.database.transaction(claim)
        for lane in lanes:
            self._known.note(lane.run_id, found[lane.run_id, lane.number])
        return [replace(lane, lease_token=lease_token, lease_until=until) for lane in lanes]

    async def lane_events(self, lane: Lane, limit: int) -> list[tuple[int, Event]]:
        if lane.dead_only:
            page = {"id": lane.run_id, "number": lane.number, "after": lane.cursor, "limit": limit}
            found = await self._all("dead_lane_events", **page)
            return [(row[0], rows.event_from(row[1:])) for row in found]
        events = None
        if not lane.ranged and self._tail.last(lane.run_id) >= lane.tail:
            events = self._tail.after(lane.run_id, lane.cursor, limit, lane.channels)
        if events is None:
            events = await self._lane_reader.read(lane, limit)
        elif lane.fixed:
            events = [event for event in events if event.seq <= lane.tail]
        return list(enumerate(events, lane.settled + 1))

    async def renew_lanes(self, lease_token: str, until: int) -> None:
        values = {"token": lease_token, "until": until}
        await self.database.transaction(lambda db: db.write("renew_lanes", values))

    def settle(self, settlement: Settlement) -> asyncio.Future[bool]:
        return self.settlements.put(settlement)

    async def release_lane(self, lane: Lane, now: int) -> None:
        await self.settlements.put(GiveBack(lane, now, parked=False))

    async def park_lanes(self, lanes: Sequence[Lane], due_at: int) -> None:
        for given_back in [self.settlements.put(GiveBack(lane, due_at, parked=True)) for lane in lanes]:
            await given_back

    async def next_due(self, busy: Sequence[str] = ()) -> int | None:
        if not busy and self._looked is not None and not self._moved:
            return self._looked[3]
        return await super().next_due(busy)


async def _remember(db: PostgresSession, key: IdempotencyKey, run_id: str, now: int) -> Created | None:
    """Notes the key for a new run, or says what it started before, also a moment ago on another node."""
    since = now - KEYS_KEPT_FOR
    earlier = await _remembered(db, key, now)
    if earlier is not None:
        return earlier
    await db.write("forget_keys", {"since": since})
    noted = {"token": key.token, "key": key.key, "fingerprint": key.fingerprint, "run_id": run_id}
    if await db.write("remember_key", {**noted, "at": now, "since": since}):
        return None
    return await _remembered(db, key, now)


async def _remembered(db: PostgresSession, key: IdempotencyKey, now: int) -> Created | None:
    wanted = {"token": key.token, "key": key.key, "since": now - KEYS_KEPT_FOR}
    found = await db.first("remembered_key", wanted)
    return None if found is None else rows.created_from(found, key)
