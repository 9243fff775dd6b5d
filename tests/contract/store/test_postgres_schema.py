"""The schema of a database: what an earlier Crewcast has written opens, and nodes may start together."""

import asyncio
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import asyncpg
import pytest
from msgspec.structs import replace

from crewcast.core.errors import StoreUnusable
from crewcast.core.event import Channel
from crewcast.store.migrations import Migration, load_migrations
from crewcast.store.postgres import PostgresStore
from crewcast.store.postgres.connection import Database
from crewcast.store.postgres.schema import migrate, unapplied
from tests.contract.store.world import ALL, WORKER, append, claimed, delivered, queued, running, sent
from tests.support.postgres import Databases

KNOWN = load_migrations("crewcast.store.postgres")
MORE = Migration(
    len(KNOWN) + 1,
    "more",
    "ALTER TABLE run ADD COLUMN colour text NOT NULL DEFAULT 'red'; CREATE TABLE shade (run bigint PRIMARY KEY);",
)
BROKEN = Migration(
    len(KNOWN) + 1, "broken", "CREATE TABLE shade (run bigint); ALTER TABLE no_such_table ADD COLUMN x text;"
)


@pytest.fixture
def bare_url(postgres: Databases, database_url: str, runner: asyncio.Runner) -> Iterator[str]:
    """A database without the schema."""
    name = f"{urlsplit(database_url).path[1:]}_bare"
    runner.run(postgres._execute(f"CREATE DATABASE {name}"))
    url = postgres._of(name)
    yield url
    runner.run(postgres.drop(url))


async def query(url: str, statement: str) -> list:
    connection = await asyncpg.connect(url, server_settings={"search_path": "crewcast"})
    try:
        return await connection.fetch(statement)
    finally:
        await connection.close()


async def migrated(url: str, known: list[Migration] | None = None) -> list[str]:
    database = await Database.open(url)
    try:
        return await migrate(database, known)
    finally:
        await database.close()


async def test_a_new_database_is_given_the_schema_once(bare_url: str):
    names = [one.name for one in KNOWN]
    database = await Database.open(bare_url)
    assert await unapplied(database) == names
    assert await unapplied(database) == names  # to look applies nothing
    assert await migrate(database) == names
    assert await migrate(database) == []
    assert await unapplied(database) == []
    await database.close()
    found = await query(bare_url, "SELECT number, sha256 FROM migration ORDER BY number")
    assert [tuple(row) for row in found] == [(one.number, one.sha256) for one in KNOWN]
    # Nothing lies beside the schema of our own.
    assert await query(bare_url, "SELECT 1 FROM pg_class WHERE relnamespace = 'public'::regnamespace") == []


async def test_the_data_of_the_previous_schema_opens_in_the_next(database_url: str):
    store = await PostgresStore.open(database_url)
    run = await append(store, await running(store, ALL), *[Channel.STEP] * 3)
    (mine,) = await claimed(store)
    await delivered(store, mine, 1)
    before = (await store.run(run.id), await store.events(run.id), await store.lanes(run.id))
    await store.close()

    assert await migrated(database_url, [*KNOWN, MORE]) == ["more"]
    assert await migrated(database_url, [*KNOWN, MORE]) == []

    database = await Database.open(database_url)
    store = PostgresStore(database)
    assert (await store.run(run.id), await store.events(run.id), await store.lanes(run.id)) == before
    (mine,) = await claimed(store)
    assert await sent(store, mine) == [(2, 2), (3, 3)]
    after = await append(store, run, Channel.CREW)
    assert (await store.run(run.id)) == replace(after, lease_token=WORKER)
    await queued(store)
    await store.close()
    assert await query(database_url, "SELECT DISTINCT colour FROM run") == [("red",)]


async def test_a_migration_that_fails_leaves_nothing_of_itself(database_url: str):
    with pytest.raises(StoreUnusable, match=r"cannot be migrated: relation .no_such_table. does not exist"):
        await migrated(database_url, [*KNOWN, BROKEN])
    assert await query(database_url, "SELECT to_regclass('shade')") == [(None,)]
    assert await query(database_url, "SELECT number FROM migration") == [(one.number,) for one in KNOWN]
    # It is as it was for the version that it has, and for one that is mended.
    store = await PostgresStore.open(database_url)
    await queued(store)
    await store.close()
    assert await migrated(database_url, [*KNOWN, MORE]) == ["more"]


async def test_the_first_migration_leaves_nothing_either(bare_url: str):
    half = Migration(1, "half", KNOWN[0].sql + BROKEN.sql)
    with pytest.raises(StoreUnusable, match="no_such_table"):
        await migrated(bare_url, [half])
    assert await query(bare_url, "SELECT to_regnamespace('crewcast')") == [(None,)]
    assert await migrated(bare_url) == [one.name for one in KNOWN]


async def test_an_older_crewcast_says_that_the_database_is_newer(database_url: str):
    await migrated(database_url, [*KNOWN, MORE])
    said = f"newer Crewcast (schema {len(KNOWN) + 1}, this one knows {len(KNOWN)}): upgrade Crewcast"
    with pytest.raises(StoreUnusable, match=re.escape(said)):
        await PostgresStore.open(database_url)
    database = await Database.open(database_url)
    with pytest.raises(StoreUnusable, match=re.escape(said)):
        await unapplied(database)
    await database.close()


async def test_another_migration_of_the_same_number_is_told(database_url: str):
    other = Migration(1, KNOWN[0].name, KNOWN[0].sql + "\n-- another")
    with pytest.raises(StoreUnusable, match=f"has another migration {other.name} than this Crewcast"):
        await migrated(database_url, [other, *KNOWN[1:]])


async def test_of_nodes_that_start_together_one_migrates_and_the_others_wait(bare_url: str):
    found = await asyncio.gather(*(migrated(bare_url, [*KNOWN, MORE]) for _ in range(6)))
    assert sorted(found) == [*[[]] * 5, [*(one.name for one in KNOWN), "more"]]


async def test_a_node_waits_for_a_migration_that_takes_longer_than_any_answer(
    database_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Database.connect, "__defaults__", ("crewcast", 0.1))
    other = await asyncpg.connect(database_url)
    await other.execute("SELECT pg_advisory_lock(4341000)")
    waiting = asyncio.create_task(migrated(database_url, [*KNOWN, MORE]))
    while not await other.fetch("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"):
        await asyncio.sleep(0.01)
    done, _ = await asyncio.wait([waiting], timeout=0.3)
    assert not done
    await other.close()
    assert await waiting == ["more"]


async def test_a_migration_may_take_longer_than_any_answer(
    database_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Database.connect, "__defaults__", ("crewcast", 0.1))
    slow = Migration(len(KNOWN) + 1, "slow", "SELECT pg_sleep(0.5);")
    assert await migrated(database_url, [*KNOWN, slow]) == ["slow"]


async def test_a_user_who_may_not_make_tables_is_told_what_to_do(postgres: Databases, bare_url: str):
    name = "u" + urlsplit(bare_url).path[1:]
    await postgres._execute(f"CREATE USER {name}")
    parts = urlsplit(bare_url)
    theirs = parts._replace(netloc=f"{name}@{parts.hostname}:{parts.port}").geturl()
    try:
        with pytest.raises(
            StoreUnusable, match=r"permission denied for database .* GRANT CREATE ON DATABASE"
        ):
            await migrated(theirs)
        await query(bare_url, f"GRANT CREATE ON DATABASE {parts.path[1:]} TO {name}")
        assert await migrated(theirs) == [one.name for one in KNOWN]
        store = await PostgresStore.open(theirs)
        await queued(store)
        await store.close()
    finally:
        await query(bare_url, f"DROP OWNED BY {name} CASCADE")
        await postgres._execute(f"DROP USER {name}")
