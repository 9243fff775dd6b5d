"""Commits that PostgreSQL does not answer."""

import asyncio

import asyncpg

from crewcast.core.errors import StoreError
from crewcast.core.origin import Breaker, Health
from crewcast.store.postgres import PostgresStore
from crewcast.store.postgres.connection import MOST_CONNECTIONS

# At the commit, the server process ends itself.
ENDS_AT_COMMIT = """
CREATE FUNCTION crewcast.end_session() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_terminate_backend(pg_backend_pid());
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER ends AFTER INSERT ON crewcast.origin
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION crewcast.end_session();
"""


async def test_more_commits_than_connections_may_go_unanswered_at_once(
    store: PostgresStore, database_url: str
):
    """Who asks what became of its commit does not keep a connection from others that ask."""
    connection = await asyncpg.connect(database_url)
    await connection.execute(ENDS_AT_COMMIT)
    count = 3 * MOST_CONNECTIONS
    origins = [Health(f"https://{n}.example", Breaker.OPEN, retry_at=1, opened_at=1) for n in range(count)]
    saving = [store.save_origin(one) for one in origins]
    ended = await asyncio.wait_for(asyncio.gather(*saving, return_exceptions=True), 90)
    assert [type(one) for one in ended if not isinstance(one, StoreError)] == []
    await connection.execute("DROP TRIGGER ends ON crewcast.origin")
    await connection.close()
    assert await store.health() == []
    await store.save_origin(origins[0])
    assert await store.health() == [origins[0]]
