"""From one SQLite file to one PostgreSQL database, with everything in it."""

from crewcast.store.moving.move import Moved, Told, move

__all__ = ["Moved", "Told", "move"]
