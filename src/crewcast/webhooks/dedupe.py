"""Handle each event once, though it is delivered at least once.

    dedupe = SQLiteDeduper("seen.db")

    with dedupe.once(delivery.id) as new:
        if new:
            handle(delivery)      # an exception here leaves the event unseen: it comes again

An event counts as handled when the block ends. If the process dies in the middle, it comes again; so what
must never happen twice belongs into one transaction with the id, in the subscriber's own database.
"""

import os
import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from crewcast.core.errors import InProgress
from crewcast.webhooks.file import File, Path

DAY = 86400.0
SIZE = 100_000
KEEP = 30 * DAY
PATIENCE = 60.0
SLICE = 100  # old ids that go at once


class Deduper(ABC):
    """Remembers ids. Any number of threads may use one."""

    @contextmanager
    def once(self, event_id: str) -> Iterator[bool]:
        """Whether the event is new; it is remembered when the block ends, and not if that raises.

        Raises InProgress while another block has the same event at work: answer 503, and it comes again.
        """
        if not self._begin(event_id):
            yield False
            return
        try:
            yield True
        except BaseException:
            self._give_up(event_id)
            raise
        self._finish(event_id)

    @abstractmethod
    def seen(self, event_id: str) -> bool:
        """Whether the event was handled."""

    @abstractmethod
    def _begin(self, event_id: str) -> bool: ...

    @abstractmethod
    def _finish(self, event_id: str) -> None: ...

    @abstractmethod
    def _give_up(self, event_id: str) -> None: ...


class MemoryDeduper(Deduper):
    """For one process, and as long as it lives: the last `size` ids, some 200 bytes each."""

    def __init__(self, size: int = SIZE) -> None:
        self._size = size
        self._handled: OrderedDict[str, None] = OrderedDict()
        self._at_work: set[str] = set()
        self._lock = threading.Lock()

    def seen(self, event_id: str) -> bool:
        with self._lock:
            return event_id in self._handled

    def _begin(self, event_id: str) -> bool:
        with self._lock:
            if event_id in self._handled:
                self._handled.move_to_end(event_id)
                return False
            if event_id in self._at_work:
                raise InProgress(f"{event_id} is at work")
            self._at_work.add(event_id)
            return True

    def _finish(self, event_id: str) -> None:
        with self._lock:
            self._at_work.discard(event_id)
            self._handled[event_id] = None
            while len(self._handled) > self._size:
                self._handled.popitem(last=False)

    def _give_up(self, event_id: str) -> None:
        with self._lock:
            self._at_work.discard(event_id)


class SQLiteDeduper(Deduper):
    """For all threads and processes that name the same file, on a local disk, and through restarts.

    Ids are kept for `keep` seconds: longer than the server sends an event again, by itself or because
    somebody asks. A process that died while it had an event at work is waited for `patience` seconds, so no
    block should take longer.
    """

    def __init__(
        self,
        path: Path,
        *,
        keep: float = KEEP,
        patience: float = PATIENCE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._keep = keep
        self._patience = patience
        self._clock = clock
        self._me = secrets.token_hex(8)
        self._file = File(path, _SCHEMA)

    def close(self) -> None:
        self._file.close()

    def seen(self, event_id: str) -> bool:
        with self._file.transaction() as db:
            found = db.execute("SELECT 1 FROM seen WHERE id = ? AND done", (event_id,)).fetchone()
            return found is not None

    def _begin(self, event_id: str) -> bool:
        now = self._clock()
        with self._file.transaction() as db:
            db.execute(
                "DELETE FROM seen WHERE id IN (SELECT id FROM seen WHERE at < ? ORDER BY at LIMIT ?)",
                (now - self._keep, SLICE),
            )
            found = db.execute("SELECT done, at FROM seen WHERE id = ?", (event_id,)).fetchone()
            if found is not None:
                done, at = found
                if done:
                    return False
                if now < at + self._patience:
                    raise InProgress(f"{event_id} is at work")
            db.execute(
                "INSERT OR REPLACE INTO seen (id, done, at, by) VALUES (?, 0, ?, ?)",
                (event_id, now, self._mine()),
            )
            return True

    def _finish(self, event_id: str) -> None:
        with self._file.transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO seen (id, done, at, by) VALUES (?, 1, ?, NULL)",
                (event_id, self._clock()),
            )

    def _give_up(self, event_id: str) -> None:
        with self._file.transaction() as db:
            db.execute("DELETE FROM seen WHERE id = ? AND by = ?", (event_id, self._mine()))

    def _mine(self) -> str:
        """Names the thread, in a process that was forked too: what another has taken over is not given up for it."""
        return f"{self._me}/{os.getpid()}/{threading.get_ident()}"


_SCHEMA = """
CREATE TABLE IF NOT EXISTS seen (
    id   TEXT PRIMARY KEY,
    done INTEGER NOT NULL,
    at   REAL NOT NULL,
    by   TEXT
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS seen_at ON seen (at);
"""
