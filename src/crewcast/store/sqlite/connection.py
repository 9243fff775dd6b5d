"""The data folder: its lock, its file, its schema."""

import fcntl
import os
import sqlite3
from contextlib import suppress
from pathlib import Path

from crewcast.core.errors import StoreError, StoreHeld, StoreUnusable
from crewcast.store import migrations
from crewcast.store.migrations import Migration, missing
from crewcast.store.sqlite.session import store_error

FILE = "crewcast.db"
LOCK = "lock"
APPLICATION_ID = 0x43726577  # "Crew" in the header of the file
OLDEST_SQLITE = (3, 37, 0)  # STRICT tables

# Larger than the default of 4 KB: fewer pages a commit, and a 1 KB body leaves less of a page unused.
PAGE_SIZE = 8192
# Pages in the write-ahead log at which the committer copies them back: 8 MB. More saves next to nothing and
# makes the pause longer.
CHECKPOINT_AT = 1000
PREPARED = 512


class FolderLock:
    """Held by one process, gone when that process is gone, however it ended."""

    def __init__(self, folder: Path) -> None:
        path = folder / LOCK
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            pid = os.pread(self._file, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._file)
            raise StoreHeld(
                f"another server (process {pid}) holds {folder}: stop that one, or name another folder"
            ) from e
        except OSError as e:
            os.close(self._file)
            raise StoreUnusable(
                f"{folder} is on a file system without locks ({e}): name a local folder"
            ) from e
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, b"%d\n" % os.getpid(), 0)

    def release(self) -> None:
        os.close(self._file)


def open_folder(folder: Path) -> FolderLock:
    """Creates the folder and an empty file if they are missing, readable by their owner alone, and locks it.

    Raises StoreHeld, or StoreUnusable.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        oldest = ".".join(map(str, OLDEST_SQLITE[:2]))
        raise StoreUnusable(
            f"this Python has SQLite {sqlite3.sqlite_version}; Crewcast needs {oldest} or newer: use another Python"
        )
    lock = None
    try:
        _make(folder)
        lock = FolderLock(folder)
        with suppress(FileExistsError):
            os.close(os.open(folder / FILE, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            _sync(folder)
    except OSError as e:
        if lock is not None:
            lock.release()
        raise StoreUnusable(
            f"{folder} cannot be used as the data folder ({e.strerror or e}): name a folder that can be written"
        ) from e
    return lock


def _make(folder: Path) -> None:
    """With the folders above it that are missing, each of a name that survives a power cut."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for made in missing:
        _sync(made.parent)


def _sync(folder: Path) -> None:
    """Makes the names of what is new in it survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def connect(file: Path) -> sqlite3.Connection:
    """A connection that any one thread may use. Raises StoreUnusable or StoreFull."""
    try:
        db = sqlite3.connect(file, isolation_level=None, check_same_thread=False, cached_statements=PREPARED)
    except sqlite3.Error as e:
        raise store_error(e, file) from e
    try:
        check_identity(db, file)
        # The order matters: the page size is fixed by the first write, the journal mode is one.
        db.execute(f"PRAGMA page_size = {PAGE_SIZE}")
        (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StoreUnusable(
                f"{file} is on a file system without write-ahead logging: name a local folder"
            )
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA fullfsync = ON")  # macOS: fsync alone leaves it in the disk's cache
        db.execute("PRAGMA busy_timeout = 10000")
        db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_AT}")
        db.execute("PRAGMA journal_size_limit = 67108864")
        db.execute("PRAGMA temp_store = MEMORY")  # the rows of one statement, never more
        # Some builds overwrite what is deleted. Deliveries do not feel it, removals do: measured, a third more is
        # written for events of 1 KB, 160 times as much for events of 100 KB, and a slice takes ten times as long.
        db.execute("PRAGMA secure_delete = OFF")
        db.execute("PRAGMA foreign_keys = OFF")
    except sqlite3.Error as e:
        db.close()
        raise store_error(e, file) from e
    except StoreError:
        db.close()
        raise
    return db


def connect_writer(file: Path) -> sqlite3.Connection:
    db = connect(file)
    db.execute("PRAGMA cache_size = -65536")
    return db


def connect_reader(file: Path) -> sqlite3.Connection:
    db = connect(file)
    db.execute("PRAGMA query_only = ON")
    return db


def check_identity(db: sqlite3.Connection, file: Path) -> None:
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application != APPLICATION_ID and (application != 0 or tables != 0):
        raise StoreUnusable(f"{file} belongs to another application: name another folder")


def load_migrations() -> list[Migration]:
    return migrations.load_migrations(__package__)


def migrate(db: sqlite3.Connection, file: Path, known: list[Migration]) -> list[str]:
    """Applies what is missing, each in one transaction; their names.

    Raises StoreUnusable for a file that a newer Crewcast has written, or one with other migrations.
    """
    try:
        new = unapplied(db, file, known)
        for migration in new:
            _apply(db, migration)
    except sqlite3.Error as e:
        raise store_error(e, file) from e
    return [migration.name for migration in new]


def unapplied(db: sqlite3.Connection, file: Path, known: list[Migration]) -> list[Migration]:
    """What `migrate` would apply. Raises StoreUnusable as it does, and what the driver raises."""
    check_identity(db, file)
    (version,) = db.execute("PRAGMA user_version").fetchone()
    applied = dict(db.execute("SELECT number, sha256 FROM migration").fetchall()) if version else {}
    if version:
        applied.setdefault(version, "")  # the file's own number counts, whatever the table says
    return missing(file, applied, known)


def _apply(db: sqlite3.Connection, migration: Migration) -> None:
    try:
        db.executescript(f"BEGIN IMMEDIATE;\n{migration.sql}")
        db.execute(
            "INSERT INTO migration (number, name, sha256) VALUES (?, ?, ?)",
            (migration.number, migration.name, migration.sha256),
        )
        # Pragmas take no parameters; both are part of the transaction.
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {migration.number}")
        db.execute("COMMIT")
    except sqlite3.Error:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
