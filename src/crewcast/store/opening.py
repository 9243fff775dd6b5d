"""Which store a node has: one place decides."""

import asyncio
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


async def migrate_store(
    data_dir: Path, database_url: str | None = None, *, dry_run: bool = False
) -> tuple[str, list[str]]:
    """Makes or migrates the schema of what `open_store` would open, or with `dry_run` only looks: where that is, and
    the names of the migrations.

    Raises StoreError for what must be mended first.
    """
    if database_url is not None:
        from crewcast.store.postgres import schema
        from crewcast.store.postgres.connection import Database

        database = await Database.open(database_url)
        try:
            work = schema.unapplied(database) if dry_run else schema.migrate(database)
            return f"PostgreSQL at {database.shown}", await work
        finally:
            await database.close()
    from crewcast.store.sqlite import aside
    from crewcast.store.sqlite.connection import FILE

    work_on = aside.unapplied if dry_run else _migrate_folder
    return str(data_dir / FILE), await asyncio.to_thread(work_on, data_dir)


def _migrate_folder(folder: Path) -> list[str]:
    from crewcast.store.sqlite import connection

    lock = connection.open_folder(folder)
    try:
        file = folder / connection.FILE
        db = connection.connect_writer(file)
        try:
            return connection.migrate(db, file, connection.load_migrations())
        finally:
            db.close()
    finally:
        lock.release()
