"""Reads beside the committer: a few threads, each with its own connection."""

import asyncio
import sqlite3
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from crewcast.core.errors import StoreUnusable
from crewcast.store.sqlite.connection import connect_reader
from crewcast.store.sqlite.session import Session, Values, store_error

THREADS = 2


class Reader:
    """Each read is one statement: a snapshot of everything that was committed before it began."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="crewcast-reader")
        self._mine = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._closed = False

    async def all(self, name: str, params: Mapping[str, Any]) -> list[Values]:
        if self._closed:
            raise StoreUnusable("the store is closed")
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._read, name, params)

    def _read(self, name: str, params: Mapping[str, Any]) -> list[Values]:
        session: Session | None = getattr(self._mine, "session", None)
        if session is None:
            session = self._mine.session = Session(connect_reader(self._file))
            self._connections.append(session.connection)
        try:
            return session.all(name, params)
        except sqlite3.Error as e:
            raise store_error(e, self._file) from e

    def close(self) -> None:
        """Waits for the reads under way."""
        self._closed = True
        self._pool.shutdown()
        for connection in self._connections:
            connection.close()
