"""What can be read of a data folder without holding it, beside a server that may be running."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from crewcast.core.generation import Rotation
from crewcast.store.sqlite import connection
from crewcast.store.sqlite.connection import FILE
from crewcast.store.sqlite.session import Session, store_error


def rotations(folder: Path) -> list[Rotation]:
    """Every rotation so far, the oldest first; none where no server, or only an older one, ever ran.

    Raises StoreError if the file cannot be read.
    """
    file = folder / FILE
    if not file.exists():
        return []
    with _reading(file) as db:
        known = db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'rotation'").fetchone()
        return [Rotation(*row) for row in Session(db).all("rotations", {})] if known else []


def unapplied(folder: Path) -> list[str]:
    """The names of the migrations that the next start would apply.

    Raises StoreError if the file cannot be read, or is of a newer Crewcast.
    """
    file, known = folder / FILE, connection.load_migrations()
    if not file.exists():
        return [migration.name for migration in known]
    with _reading(file) as db:
        return [migration.name for migration in connection.unapplied(db, file, known)]


@contextmanager
def _reading(file: Path) -> Iterator[sqlite3.Connection]:
    try:
        # `mode=ro`: nothing here can change what a running server holds.
        with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True)) as db:
            db.execute("PRAGMA busy_timeout = 10000")
            yield db
    except sqlite3.Error as e:
        raise store_error(e, file) from e
