"""The verbs of `protocol.Store` over one SQLite file."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from crewcast.core.event import Channel, Event
from crewcast.core.lane import Attempt, Lane
from crewcast.core.run import Run, RunState
from crewcast.store.protocol import (
    Created,
    DeadLetter,
    Hint,
    HintListener,
    IdempotencyKey,
    Settlement,
)
from crewcast.store.sqlite import rows
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
from crewcast.store.sqlite.tail import Tail
from crewcast.store.sqlite.writes import KEYS_KEPT_FOR, Adopt, Append, Claim, NewRun, Release, Renew, Writes

log = logging.getLogger("crewcast.store")


class SQLiteStore:
    """Implements `protocol.Store`; the promises are told there."""

    def __init__(self, file: Path, lock: FolderLock, writes: Writes, on_death: Callable[[], None]) -> None:
        self._lock = lock
        self._writes = writes
        self._reader = Reader(file)
        self._tail = Tail()
        self._listeners: list[HintListener] = []
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

    # --- hints ------------------------------------------------------------------------------

    def listen(self, listener: HintListener) -> Callable[[], None]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def _committed(self, writes: list[Write]) -> None:
        """In the loop, before the callers hear of it: whoever is told of a commit can read it."""
        hints: dict[tuple[Hint, str], None] = {}
        for write in writes:
            if write.error is None:
                hints.update((hint, None) for hint in self._hints(write))
        for hint, run_id in hints:
            for listener in tuple(self._listeners):
                try:
                    listener(hint, run_id)
                except Exception:
                    # The callers' writes are committed whatever a listener does.
                    log.exception("a listener failed at %s of run %s", hint, run_id)

    def _hints(self, write: Write) -> list[tuple[Hint, str]]:
        verb, result = write.verb, write.result
        if verb is self._writes.append and result:
            run: Run = write.value.run
            self._tail.add(run.id, write.value.events)
            moved = (Hint.EVENTS, run.id)
            return [moved, (Hint.QUEUED, run.id)] if run.state is RunState.QUEUED else [moved]
        if verb is self._writes.create_run and not result.replayed:
            return [(Hint.QUEUED, result.run_id)]
        if verb is self._writes.claim_runs:
            return [(Hint.EVENTS, run.id) for run in result]
        return []

    # --- runs -------------------------------------------------------------------------------

    async def create_run(
        self, run: Run, lanes: Sequence[Lane], key: IdempotencyKey | None, now: int
    ) -> Created:
        return await self.committer.put(self._writes.create_run, NewRun(run, lanes, key, now))

    async def earlier(self, key: IdempotencyKey, now: int) -> Created | None:
        wanted = {"token": key.token, "key": key.key, "since": now - KEYS_KEPT_FOR}
        found = await self._reader.all("remembered_key", wanted)
        if not found:
            return None
        run_id, fingerprint = found[0]
        return Created(run_id, replayed=True, conflict=fingerprint != key.fingerprint)

    async def run(self, run_id: str) -> Run | None:
        found = await self._reader.all("run", {"id": run_id})
        return rows.run_from(found[0]) if found else None

    async def claim_runs(
        self, crews: Sequence[str], limit: int, lease_token: str, now: int, lease: int
    ) -> list[Run]:
        claim = Claim(limit, lease_token, now, now + lease, crews)
        return await self.committer.put(self._writes.claim_runs, claim)

    async def renew_runs(self, lease_token: str, until: int) -> None:
        await self.committer.put(self._writes.renew_runs, Renew(lease_token, until))

    def append(self, run: Run, events: Sequence[Event], lease_token: str) -> asyncio.Future[bool]:
        return self.committer.put(self._writes.append, Append(run, events, lease_token))

    async def running_runs(self) -> list[Run]:
        return [rows.run_from(row) for row in await self._reader.all("running_runs", {})]

    async def adopt(self, run: Run, lease_token: str, until: int) -> bool:
        return await self.committer.put(self._writes.adopt, Adopt(run, lease_token, until))

    async def events(
        self, run_id: str, after: int = 0, limit: int = 100, channels: Channel | None = None
    ) -> list[Event]:
        recent = self._tail.after(run_id, after, limit, channels)
        if recent is not None:
            return recent
        wanted = -1 if channels is None else int(channels)
        page = {"id": run_id, "after": after, "limit": limit, "channels": wanted}
        return [rows.event_from(row) for row in await self._reader.all("events", page)]

    async def last_event(self, run_id: str, channel: Channel) -> Event | None:
        found = await self._reader.all("last_event", {"id": run_id, "channel": int(channel)})
        return rows.event_from(found[0]) if found else None

    async def lanes(self, run_id: str) -> list[Lane]:
        return [rows.lane_from(row) for row in await self._reader.all("lanes", {"id": run_id})]

    async def attempts(self, run_id: str, after: int = 0, limit: int = 1000) -> list[tuple[int, Attempt]]:
        page = {"id": run_id, "after": after, "limit": limit}
        return [rows.attempt_from(row) for row in await self._reader.all("attempts", page)]

    async def dead_letters(self, run_id: str) -> list[DeadLetter]:
        return [DeadLetter(*row) for row in await self._reader.all("dead_letters", {"id": run_id})]

    # --- lanes ------------------------------------------------------------------------------

    async def claim_lanes(self, limit: int, lease_token: str, now: int, lease: int) -> list[Lane]:
        claim = Claim(limit, lease_token, now, now + lease)
        return await self.committer.put(self._writes.claim_lanes, claim)

    async def renew_lanes(self, lease_token: str, until: int) -> None:
        await self.committer.put(self._writes.renew_lanes, Renew(lease_token, until))

    def settle(self, settlement: Settlement) -> asyncio.Future[bool]:
        return self.committer.put(self._writes.settle, settlement)

    async def release_lane(self, lane: Lane, now: int) -> None:
        await self.committer.put(self._writes.release_lane, Release(lane, now))

    async def next_due(self) -> int | None:
        ((due,),) = await self._reader.all("next_due", {})
        return None if due is None else int(due)

    async def pending_beside(self, lane: Lane) -> int:
        which = {"id": lane.run_id, "number": lane.number, "origin": lane.origin}
        ((count,),) = await self._reader.all("pending_beside", which)
        return int(count)

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
