"""The data folder that is moved from, held so that nothing changes in it meanwhile."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from crewcast.core.errors import StoreHeld, UsageError
from crewcast.store.moving.tables import LAST_ATTEMPT, LAST_OF, LAST_RUN, Table
from crewcast.store.postgres.partitions import SHIFT, day_of
from crewcast.store.postgres.session import plain
from crewcast.store.session import Values
from crewcast.store.sqlite.connection import FILE, connect_writer, load_migrations, migrate, open_folder
from crewcast.store.sqlite.session import store_error


class Source:
    """Rows are read one after the other: what is in memory does not grow with what there is."""

    def __init__(self, db: sqlite3.Connection, file: Path) -> None:
        self._db = db
        self.file = file

    def place_runs(self) -> list[int]:
        """Gives every run its key in PostgreSQL; the days that the keys begin with.

        The day is the one on which the run was created, or an earlier one if runs that came later have an earlier one:
        whatever the clock said, keys grow in the order of creation.
        """
        self._db.execute("PRAGMA temp_store = FILE")
        self._db.execute("CREATE TEMP TABLE moved (key INTEGER PRIMARY KEY, place INTEGER NOT NULL)")
        days: set[int] = set()

        def places() -> Iterator[tuple[int, int]]:
            day: int | None = None
            for key, created_at in self._db.execute(
                "SELECT key, created_at FROM run WHERE hidden = 0 ORDER BY key DESC"
            ):
                day = day_of(created_at) if day is None else min(day, day_of(created_at))
                days.add(day)
                yield key, day << SHIFT | key

        self._db.executemany("INSERT INTO moved (key, place) VALUES (?, ?)", places())
        return sorted(days)

    def count(self, table: Table) -> int:
        return self._number(table.count)

    def rows(self, table: Table, now: int) -> Iterator[Values]:
        """As PostgreSQL can keep them."""
        for row in self._db.execute(table.select, {"now": now} if ":now" in table.select else {}):
            yield tuple([plain(value) if value.__class__ is str else value for value in row])

    def highest(self) -> dict[str, int]:
        """Of each sequence of PostgreSQL the number that was drawn last; 0 if none was."""
        return {
            "run_serial": self._number(LAST_RUN),
            "attempt_id": self._number(LAST_ATTEMPT),
            "dead_letter_id_seq": self._number(LAST_OF, name="dead_letter"),
            "review_id_seq": self._number(LAST_OF, name="review"),
        }

    def _number(self, query: str, **parameters: Any) -> int:
        row = self._db.execute(query, parameters).fetchone()
        return 0 if row is None else int(row[0])


@contextmanager
def opened(folder: Path) -> Iterator[Source]:
    """The folder, held until the end, its file brought to the present schema.

    Raises UsageError if there is nothing to move, StoreHeld while a server runs, and StoreError.
    """
    file = folder / FILE
    if not file.is_file():
        raise UsageError(
            f"there is no {FILE} in {folder}: name the data folder of the server that was used so far"
        )
    try:
        lock = open_folder(folder)
    except StoreHeld as e:
        raise StoreHeld(
            f"a server is running on {folder}, and would write what is not moved: stop it first"
        ) from e
    try:
        db = connect_writer(file)
        try:
            migrate(db, file, load_migrations())
            yield Source(db, file)
        except sqlite3.Error as e:
            raise store_error(e, file) from e
        finally:
            db.close()
    finally:
        lock.release()
