"""The committer: one thread with the one writing connection, which commits everybody's writes together."""

import asyncio
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from crewcast.core.errors import StoreError, StoreFull, StoreUnusable
from crewcast.store.sqlite.session import store_error

log = logging.getLogger("crewcast.store")

V = TypeVar("V")
R = TypeVar("R")

# Writes of one transaction: enough to pay for its fsync, few enough that nobody waits long for it.
MOST_WRITES = 512
# A cycle of this many writes is load; then the next one waits this many seconds before it takes its own.
BUSY = 8
GATHER = 0.001


class Unheld(Exception):
    """A guard of some write in a group did not hold, so which one has to be found out."""


@dataclass(frozen=True, slots=True, eq=False)
class Verb(Generic[V, R]):
    """`write` takes the values of one or more writes and returns their results in the same order.

    For one value it reports a guard that did not hold as the result; for several it may raise Unheld.
    Writes that are on their way at the same time are concurrent, so any order of them is right; ours is
    by `rank`, then as they came. A caller that does not wait for a settlement may thus release the lane.
    """

    rank: int
    write: Callable[[Sequence[V]], list[R]]


@dataclass(slots=True, eq=False)
class Write:
    """On its way to the disk and back; the committer's thread fills in `result` or `error`."""

    verb: Verb[Any, Any]
    value: Any
    future: "asyncio.Future[Any]"
    result: Any = None
    error: Exception | None = None


def end_process() -> None:
    """Whoever waits for a write would wait for ever: a supervisor that restarts the server is better."""
    logging.shutdown()
    os._exit(70)  # EX_SOFTWARE


class Committer:
    """`put` from the event loop; the futures are resolved there, once per cycle."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        file: object,
        *,
        committed: Callable[[list[Write]], None],
        rolled_back: Callable[[], None],
        on_death: Callable[[], None] = end_process,
    ) -> None:
        """`committed` is called in the loop before the futures are resolved."""
        self._db = connection
        self._file = file
        self._committed = committed
        self._rolled_back = rolled_back
        self._on_death = on_death
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[Write | None] = SimpleQueue()
        self._closed: str | None = None
        self._stopped = self._loop.create_future()
        self._full = False  # and that was said
        self.commits = 0
        self.writes = 0
        self._thread = threading.Thread(target=self._run, name="crewcast-committer", daemon=True)
        self._thread.start()

    def put(self, verb: Verb[V, R], value: V) -> "asyncio.Future[R]":
        """Queues a write now, not when the future is awaited: writes of one caller keep their order."""
        future: asyncio.Future[R] = self._loop.create_future()
        if self._closed is not None:
            future.set_exception(StoreUnusable(self._closed))
        else:
            self._queue.put(Write(verb, value, future))
        return future

    async def close(self) -> None:
        """Commits what is queued. The connection is not used any more when this returns."""
        if self._closed is None:
            self._closed = "the store is closed"
            self._queue.put(None)
        await asyncio.shield(self._stopped)

    # --- in the thread ----------------------------------------------------------------------

    def _run(self) -> None:
        taken: list[Write] = []
        try:
            for taken in self._cycles():
                self._commit(taken)
                self._loop.call_soon_threadsafe(self._resolve, taken)
            self._loop.call_soon_threadsafe(self._stopped.set_result, None)
        except BaseException as e:
            if self._loop.is_closed():
                return  # nobody is left to tell; what was committed is committed
            log.critical("the committer died; the server ends", exc_info=True)
            self._on_death()
            self._loop.call_soon_threadsafe(self._abandon, taken, e)

    def _cycles(self) -> Iterator[list[Write]]:
        """Whatever is queued, waiting for at least one write; ends at the None of `close`."""
        crowd = 0
        while True:
            taken = [self._queue.get()]
            if crowd >= BUSY:
                # Under load a moment's patience makes groups larger and each write cheaper.
                time.sleep(GATHER)
            taken += [self._queue.get() for _ in range(min(self._queue.qsize(), MOST_WRITES - 1))]
            writes = [write for write in taken if write is not None]
            crowd = len(writes)
            if writes:
                yield writes
            if len(writes) < len(taken):
                return

    def _commit(self, writes: list[Write]) -> None:
        """All in one transaction. If that fails, each alone, so that only the guilty one gets its error."""
        self.writes += len(writes)
        try:
            try:
                self._transaction(writes, together=True)
            except Unheld:
                self._roll_back()
                self._transaction(writes, together=False)
        except Exception as e:  # noqa: BLE001 - whatever it is belongs to the caller of one of these writes
            self._roll_back()
            if len(writes) == 1:
                writes[0].error = self._told(e)
            else:
                for write in writes:
                    self._commit_alone(write)

    def _commit_alone(self, write: Write) -> None:
        try:
            self._transaction([write], together=False)
        except Exception as e:  # noqa: BLE001 - and this is the one
            self._roll_back()
            write.error = self._told(e)

    def _transaction(self, writes: list[Write], *, together: bool) -> None:
        groups: dict[Verb[Any, Any], list[Write]] = {}
        for write in writes:
            groups.setdefault(write.verb, []).append(write)
        before = self._db.total_changes
        self._db.execute("BEGIN IMMEDIATE")
        for verb in sorted(groups, key=_rank):
            group = groups[verb]
            if together:
                for write, result in zip(group, verb.write([write.value for write in group]), strict=True):
                    write.result = result
            else:
                for write in group:
                    (write.result,) = verb.write([write.value])
        self._db.execute("COMMIT")
        self.commits += 1
        if self._full and self._db.total_changes > before:  # what writes nothing needs no room
            self._full = False
            log.warning("%s can be written again: what waited goes on", self._file)

    def _roll_back(self) -> None:
        """SQLite has rolled back by itself after some errors. Failing here is the death of the thread."""
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
        self._rolled_back()

    def _told(self, error: Exception) -> Exception:
        if isinstance(error, sqlite3.Error):
            told: StoreError = store_error(error, self._file)
            told.__cause__ = error
            if isinstance(told, StoreFull) and not self._full:
                self._full = True
                log.error("%s Until then nothing is accepted; runs and deliveries wait.", told)
            return told
        return error

    # --- in the loop ------------------------------------------------------------------------

    def _resolve(self, writes: list[Write]) -> None:
        self._committed(writes)
        for write in writes:
            future = write.future
            if future.done():  # its caller was cancelled meanwhile
                continue
            if write.error is None:
                future.set_result(write.result)
            else:
                future.set_exception(write.error)

    def _abandon(self, taken: list[Write], error: BaseException) -> None:
        """Only where `on_death` lets the process live, in tests."""
        self._closed = f"the committer died: {error!r}"
        while not self._queue.empty():
            write = self._queue.get()
            if write is not None:
                taken.append(write)
        for write in taken:
            if not write.future.done():
                write.future.set_exception(StoreUnusable(self._closed))
        if not self._stopped.done():
            self._stopped.set_result(None)


def _rank(verb: Verb[Any, Any]) -> int:
    return verb.rank
