"""What the driver says of a connection that it has lost, and what becomes of it."""

import asyncpg
import pytest

from crewcast.core.errors import StoreError


@pytest.mark.parametrize("error", [asyncpg.InternalClientError, asyncpg.ConnectionDoesNotExistError, OSError])
def test_a_connection_that_comes_to_grief_is_replaced_and_no_defect(store, runner, error):
    """asyncpg has an internal error for a statement on one that is just being lost."""
    database = store.database
    pids = []

    async def grief(db):
        pids.append(db.connection.get_server_pid())
        raise error("cannot switch to state 12; another operation (2) is in progress")

    async def pid(db):
        return await db.connection.fetchval("SELECT pg_backend_pid()")

    async def story():
        with pytest.raises(StoreError, match="does not answer"):
            await database.transaction(grief)
        assert await database.transaction(pid) not in pids
        with pytest.raises(StoreError, match="does not answer"):
            await database.read(grief)
        assert await database.read(pid)

    runner.run(story())
