"""A small SQLite file that the threads and processes of a subscriber share."""

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

Path = str | os.PathLike[str]

PATIENCE = 10.0  # seconds that one waits for another's transaction


class File:
    """With `path` None it is in memory, and gone with the object.

    Every transaction is durable when it ends: what was marked as handled stays so through a power cut.
    """

    def __init__(self, path: Path | None, schema: str) -> None:
        self._path = path
        self._schema = schema
        self._lock = threading.Lock()
        self._pid = 0
        self._db: sqlite3.Connection | None = None
        with self.transaction():  # so that a path that cannot be used is told at once
            pass

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """The connection, inside a transaction that writes; an exception undoes it."""
        with self._lock:
            db = self._connected()
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    def close(self) -> None:
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None

    def _connected(self) -> sqlite3.Connection:
        """A process that was forked has a connection of its own: two must not share one."""
        if self._db is None or (self._path is not None and self._pid != os.getpid()):
            self._pid = os.getpid()
            self._db = sqlite3.connect(
                ":memory:" if self._path is None else self._path,
                timeout=PATIENCE,
                isolation_level=None,
                check_same_thread=False,
            )
            _write_ahead(self._db)
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(self._schema)
        return self._db


def _write_ahead(db: sqlite3.Connection) -> None:
    """Of processes that open a new file at once, one changes its mode; SQLite does not make the others wait."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as e:
            if e.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.01)
        else:
            return
