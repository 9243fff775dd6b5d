"""The verbs of `protocol.Store` over one SQLite file."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from crewcast.core.event import Event
from crewcast.core.generation import Rotation
from crewcast.core.lane import Lane
from crewcast.core.origin import Health
from crewcast.core.review import Review
from crewcast.core.run import Run, RunState
from crewcast.store import rows
from crewcast.store.hints import Hinted, Listeners, moved
from crewcast.store.protocol import (
    NO_ENTRIES,
    NO_LIMITS,
    Created,
    Hint,
    HintListener,
    IdempotencyKey,
    Removal,
    Settlement,
)
from crewcast.store.reading import Reading
from crewcast.store.session import LARGEST, Values
from crewcast.store.sqlite.committer import Committer, Write, end_process
from crewcast.store.sqlite.connection import (
    FILE,
    FolderLock,
    connect_writer,
    load_migrations,
    migrate,
    open_folder,
)
from crewcast.store.sqlite.reader import Reader
from crewcast.store.sqlite.sharing import Sharing
from crewcast.store.sqlite.waiting import Waiting
from crewcast.store.sqlite.writes import (
    Adopt,
    ClaimLanes,
    NewRun,
    Park,
    Release,
    Renew,
    Writes,
)
from crewcast.store.tail import Tail
from crewcast.store.verbs.append import Append
from crewcast.store.verbs.origins import Reset
from crewcast.store.verbs.queue import Claim
from crewcast.store.verbs.replays import Redeliver
from crewcast.store.verbs.retention import Expire
from crewcast.store.verbs.reviews import Conclude, Decide, Remind
from crewcast.store.verbs.secrets import Bind, Rotate


class SQLiteStore(Waiting, Sharing, Reading):
    """Implements `protocol.Store`; the promises are told there."""

    def __init__(self, file: Path, lock: FolderLock, writes: Writes, on_death: Callable[[], None]) -> None:
        self._lock = lock
        self._writes = writes
        self._reader = Reader(file)
        self._tail = Tail()
        # Runs whose subscriptions changed since this process began: a lane that was claimed before does not say
        # so. Those that are known to have changed earlier do.
        self._changed: set[str] = set()
        self._listeners = Listeners()
        self._closing = False
        self.committer = Committer(
            writes.connection,
            file,
            committed=self._committed,
            rolled_back=writes.forget,
            on_death=on_death,
        )

    @classmethod
    async def open(cls, folder: Path, *, on_death: Callable[[], None] = end_process) -> Self:
        """Opens or creates the store in `folder` and holds it until `close` or the end of the process.

        Raises StoreHeld, StoreUnusable or StoreFull.
        """
        lock, writes = await asyncio.to_thread(_open, folder)
        return cls(folder / FILE, lock, writes, on_death)

    async def close(self) -> None:
        first = not self._closing
        self._closing = True
        await self.committer.close()
        if first:
            await asyncio.to_thread(self._let_go)

    def _let_go(self) -> None:
        self._reader.close()
        self._writes.connection.close()  # the last one: copies the write-ahead log back
        self._lock.release()

    async def _all(self, query: str, **params: Any) -> list[Values]:
        return await self._reader.all(query, params)

    # --- hints ------------------------------------------------------------------------------

    def listen(self, listener: HintListener) -> Callable[[], None]:
        return self._listeners.listen(listener)

    def _committed(self, writes: list[Write]) -> None:
        """In the loop, before the callers hear of it: whoever is told of a commit can read it."""
        hints: dict[Hinted, None] = {}
        for write in writes:
            if write.error is None:
                hints.update((hint, None) for hint in self._hints(write))
        for hint, about in hints:
            self._listeners.call(hint, about)

    def _hints(self, write: Write) -> list[Hinted]:
        verb, result, writes = write.verb, write.result, self._writes
        if verb is writes.append and result:
            run: Run = write.value.run
            self._tail.add(run.id, write.value.events)
            return moved(run)
        if verb in (writes.decide, writes.remind, writes.conclude):
            return self._moved(write.value) if result else []
        if verb is writes.create_run and not result.replayed:
            return [(Hint.QUEUED, result.run_id)]
        if verb is writes.claim_runs:
            return [(Hint.EVENTS, run.id) for run in result]
        if verb is writes.redeliver and result:
            return [(Hint.EVENTS, write.value.run_id)]
        if verb is writes.reset_origin:
            return [(Hint.ORIGIN, write.value.origin)]
        return self._seldom_hints(write)

    def _seldom_hints(self, write: Write) -> list[Hinted]:
        verb, result, writes = write.verb, write.result, self._writes
        if verb is writes.request_stop and result is not None and result.state is RunState.RUNNING:
            return [(Hint.STOP, result.id)]
        if verb is writes.rotate and result is not None:
            return [(Hint.ROTATED, result.origin)]
        hidden: list[str] = []
        if verb is writes.expire:
            hidden = result
        elif verb is writes.delete_run and result is Removal.HIDDEN:
            hidden = [write.value]
        for run_id in hidden:
            self._tail.forget(run_id)
            self._changed.discard(run_id)
        return [(Hint.EVENTS, run_id) for run_id in hidden]

    def _moved(self, value: Decide | Remind | Conclude) -> list[Hinted]:
        run_id = value.after.id
        if isinstance(value, Decide) and value.subscriptions is not None:
            self._changed.add(run_id)
        self._tail.add(run_id, value.events)
        return moved(value.after)

    # --- runs -------------------------------------------------------------------------------

    async def create_run(
        self,
        run: Run,
        lanes: Sequence[Lane],
        key: IdempotencyKey | None,
        now: int,
        journal: Mapping[str, bytes | None] = NO_ENTRIES,
    ) -> Created:
        return await self.committer.put(self._writes.create_run, NewRun(run, lanes, key, now, journal))

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
        claim = Claim(limit, lease_token, now, now + lease, crews, per_crew, per_token)
        return await self.committer.put(self._writes.claim_runs, claim)

    def append(
        self,
        run: Run,
        events: Sequence[Event],
        lease_token: str,
        journal: Mapping[str, bytes | None] = NO_ENTRIES,
        review: Review | None = None,
    ) -> asyncio.Future[bool]:
        return self.committer.put(self._writes.append, Append(run, events, lease_token, journal, review))

    async def adopt(self, run: Run, lease_token: str, until: int) -> bool:
        return await self.committer.put(self._writes.adopt, Adopt(run, lease_token, until))

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
        claim = ClaimLanes(limit, lease_token, now, now + lease, busy, per_origin)
        return await self.committer.put(self._writes.claim_lanes, claim)

    async def lane_events(self, lane: Lane, limit: int) -> list[tuple[int, Event]]:
        if lane.dead_only:
            page = {"id": lane.run_id, "number": lane.number, "after": lane.cursor, "limit": limit}
            found = await self._reader.all("dead_lane_events", page)
            return [(row[0], rows.event_from(row[1:])) for row in found]
        last = lane.tail if lane.fixed else LARGEST
        events = None
        if not lane.ranged and lane.run_id not in self._changed:
            events = self._tail.after(lane.run_id, lane.cursor, limit, lane.channels)
        if events is None:
            page = {
                "id": lane.run_id,
                "number": lane.number,
                "after": lane.cursor,
                "last": last,
                "limit": limit,
            }
            events = [rows.event_from(row) for row in await self._reader.all("lane_events", page)]
        elif lane.fixed:
            events = [event for event in events if event.seq <= last]
        return list(enumerate(events, lane.settled + 1))

    async def renew_lanes(self, lease_token: str, until: int) -> None:
        await self.committer.put(self._writes.renew_lanes, Renew(lease_token, until))

    def settle(self, settlement: Settlement) -> asyncio.Future[bool]:
        return self.committer.put(self._writes.settle, settlement)

    async def release_lane(self, lane: Lane, now: int) -> None:
        await self.committer.put(self._writes.release_lane, Release(lane, now))

    async def park_lanes(self, lanes: Sequence[Lane], due_at: int) -> None:
        await self.committer.put(self._writes.park_lanes, Park(lanes, due_at))

    # --- redelivery -------------------------------------------------------------------------

    async def redeliver(
        self,
        run_id: str,
        *,
        now: int,
        lane: int | None = None,
        seq: int | None = None,
        dead_only: bool = False,
        since: int = 0,
        target: tuple[str, str] | None = None,
        auth: bytes | None = None,
    ) -> list[Lane]:
        asked = Redeliver(run_id, now, lane, seq, dead_only, since, target, auth)
        return await self.committer.put(self._writes.redeliver, asked)

    # --- origins ----------------------------------------------------------------------------

    async def save_origin(self, health: Health) -> None:
        await self.committer.put(self._writes.save_origin, health)

    async def reset_origin(self, origin: str, now: int, limit: int = 1000) -> int:
        return await self.committer.put(self._writes.reset_origin, Reset(origin, now, limit))

    # --- retention --------------------------------------------------------------------------

    async def expire(self, before: int, limit: int) -> list[str]:
        found = await self._reader.all("expired_runs", {"before": before, "limit": limit})
        if not found:
            return []
        return await self.committer.put(self._writes.expire, Expire([run_id for (run_id,) in found], before))

    async def delete_run(self, run_id: str) -> Removal:
        return await self.committer.put(self._writes.delete_run, run_id)

    async def sweep(self, limit: int) -> int:
        return await self.committer.put(self._writes.sweep, limit)

    # --- rotation ---------------------------------------------------------------------------

    async def rotate(self, origin: str, now: int, until: int) -> Rotation | None:
        return await self.committer.put(self._writes.rotate, Rotate(origin, now, until))

    async def bind_key(self, fingerprint: bytes, *, replace: bool = False) -> bytes:
        return await self.committer.put(self._writes.bind_key, Bind(fingerprint, replace))

    # --- node -------------------------------------------------------------------------------

    async def void_leases(self, now: int) -> None:
        await self.committer.put(self._writes.void_leases, now)


def _open(folder: Path) -> tuple[FolderLock, Writes]:
    lock = open_folder(folder)
    try:
        writer = connect_writer(folder / FILE)
        try:
            migrate(writer, folder / FILE, load_migrations())
        except BaseException:
            writer.close()
            raise
    except BaseException:
        lock.release()
        raise
    return lock, Writes(writer)
