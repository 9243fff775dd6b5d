"""The schema of a database: made or migrated under a lock, so that nodes may start together."""

from collections.abc import Sequence

import asyncpg

from crewcast.core.errors import StoreUnusable
from crewcast.store.migrations import Migration, load_migrations, missing
from crewcast.store.postgres.connection import AWAY, Database, told
from crewcast.store.postgres.session import SCHEMA, Connection

_LOCK = 4341000
_TABLE = "CREATE TABLE migration (number integer PRIMARY KEY, name text NOT NULL, sha256 text NOT NULL)"


async def migrate(database: Database, migrations: Sequence[Migration] | None = None) -> list[str]:
    """Applies what is missing, each migration in one transaction; their names.

    Raises StoreUnusable for a database that a newer Crewcast has written, one with other migrations, or one whose
    user may not make tables.
    """
    known = load_migrations(__package__) if migrations is None else migrations
    connection = await _connect(database)
    try:
        # Another node may be migrating for minutes.
        await connection.execute("SET lock_timeout = 0; SET statement_timeout = 0")
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
        return await _apply_missing(database, connection, known)
    except asyncpg.InsufficientPrivilegeError as e:
        raise StoreUnusable(
            f"PostgreSQL at {database.shown}: {told(e)}. Crewcast owns a schema {SCHEMA} with a table for each day: make "
            "its user the owner of the database, or GRANT CREATE ON DATABASE to it"
        ) from e
    except (asyncpg.PostgresError, *AWAY) as e:
        raise StoreUnusable(f"PostgreSQL at {database.shown} cannot be migrated: {told(e)}") from e
    finally:
        if not connection.is_closed():
            await connection.close(timeout=5)


async def unapplied(database: Database) -> list[str]:
    """What `migrate` would apply. Raises StoreUnusable as it does."""
    connection = await _connect(database)
    try:
        return [one.name for one in await _missing(database, connection, load_migrations(__package__))]
    except (asyncpg.PostgresError, *AWAY) as e:
        raise StoreUnusable(f"PostgreSQL at {database.shown} cannot be read: {told(e)}") from e
    finally:
        if not connection.is_closed():
            await connection.close(timeout=5)


async def _connect(database: Database) -> Connection:
    try:
        return await database.connect("crewcast migrate", answer_within=None)
    except (asyncpg.PostgresError, *AWAY) as e:
        raise StoreUnusable(f"PostgreSQL at {database.shown} cannot be used: {told(e)}") from e


async def _missing(database: Database, connection: Connection, known: Sequence[Migration]) -> list[Migration]:
    if await connection.fetchval("SELECT to_regclass('migration')") is None:
        applied = {}
    else:
        applied = dict(await connection.fetch("SELECT number, sha256 FROM migration"))
    return missing(f"PostgreSQL at {database.shown}", applied, known)


async def _apply_missing(database: Database, connection: Connection, known: Sequence[Migration]) -> list[str]:
    new = await _missing(database, connection, known)
    for migration in new:
        async with connection.transaction():
            if migration.number == 1:
                if await connection.fetchval("SELECT to_regnamespace($1)", SCHEMA) is None:
                    await connection.execute(f"CREATE SCHEMA {SCHEMA}")
                await connection.execute(_TABLE)
            await connection.execute(migration.sql)
            await connection.execute(
                "INSERT INTO migration (number, name, sha256) VALUES ($1, $2, $3)",
                migration.number,
                migration.name,
                migration.sha256,
            )
    return [migration.name for migration in new]
