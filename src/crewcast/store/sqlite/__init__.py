"""The embedded store: one SQLite file in the data folder, written by one thread of one process."""

from crewcast.store.sqlite.store import SQLiteStore

__all__ = ["SQLiteStore"]
