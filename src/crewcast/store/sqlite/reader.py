"""Reads beside the committer: a few threads, each with its own connection."""

import asyncio
import sqlite3
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from crewcast.core.errors import StoreUnusable
from crewcast.store.session import Values
from crewcast.store.sqlite.connection import connect_reader
from crewcast.store.sqlite.session import Session, store_error

THREADS = 2


@dataclass(slots=True, eq=False)
class _Read:
    name: str
    params: Mapping[str, Any]
    future: "asyncio.Future[list[Values]]"
    rows: list[Values] | None = None
    error: Exception | None = None


class Reader:
    """Each read is one statement: a snapshot of everything that was committed before it began.

    The threads are started by the first reads. The loop is woken once for all that were read meanwhile: a
    dispatcher with many lanes makes thousands of small reads a second, and an executor's two futures and two
    locks for each would cost more than the reads.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[_Read | None] = SimpleQueue()
        self._done: deque[_Read] = deque()
        self._waking = False
        self._threads: list[threading.Thread] = []
        self._connections: list[sqlite3.Connection] = []
        self._under_way = 0
        self._closed = False

    async def all(self, name: str, params: Mapping[str, Any]) -> list[Values]:
        if self._closed:
            raise StoreUnusable("the store is closed")
        if self._under_way >= len(self._threads) < THREADS:
            self._start_thread()
        read = _Read(name, params, self._loop.create_future())
        self._under_way += 1
        self._queue.put(read)
        return await read.future

    def close(self) -> None:
        """Waits for the reads under way. Not in the loop, which has to hear of them."""
        self._closed = True
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()
        for connection in self._connections:
            connection.close()

    def _start_thread(self) -> None:
        thread = threading.Thread(
            target=self._run, name=f"crewcast-reader-{len(self._threads) + 1}", daemon=True
        )
        self._threads.append(thread)
        thread.start()

    # --- in the threads ---------------------------------------------------------------------

    def _run(self) -> None:
        session: Session | None = None
        while (read := self._queue.get()) is not None:
            try:
                if session is None:
                    session = Session(connect_reader(self._file))
                    self._connections.append(session.connection)
                read.rows = session.all(read.name, read.params)
            except sqlite3.Error as e:
                read.error = store_error(e, self._file)
                read.error.__cause__ = e
            except Exception as e:  # noqa: BLE001 - it belongs to the caller
                read.error = e
            self._done.append(read)
            # Set before `_tell` looks: what is appended while it is set is seen by that look.
            if not self._waking:
                self._waking = True
                try:
                    self._loop.call_soon_threadsafe(self._tell)
                except RuntimeError:
                    return  # the loop is closed: nobody waits

    # --- in the loop ------------------------------------------------------------------------

    def _tell(self) -> None:
        self._waking = False
        while self._done:
            read = self._done.popleft()
            self._under_way -= 1
            if read.future.done():  # its caller was cancelled meanwhile
                continue
            if read.error is not None:
                read.future.set_exception(read.error)
            else:
                assert read.rows is not None
                read.future.set_result(read.rows)
