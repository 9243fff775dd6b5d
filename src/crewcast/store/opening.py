"""Which store a node has: one place decides."""

from pathlib import Path

from crewcast.store.protocol import Store


async def open_store(data_dir: Path, database_url: str | None = None) -> Store:
    """The PostgreSQL database of `database_url`, or without one the SQLite file in `data_dir`; made or migrated.

    Raises StoreError for what must be mended first.
    """
    if database_url is not None:
        from crewcast.store.postgres import PostgresStore

        return await PostgresStore.open(database_url)
    from crewcast.store.sqlite import SQLiteStore

    return await SQLiteStore.open(data_dir)
