"""A committed rotation is in force on a running node, whoever committed it."""

import asyncio
import logging
import sqlite3
from contextlib import asynccontextmanager, closing

from crewcast.clock import ManualClock
from crewcast.core.errors import StoreError
from crewcast.core.keyring import KeyRing
from crewcast.rotation import EVERY, RotationFollower
from crewcast.store.sqlite import SQLiteStore
from crewcast.store.sqlite.connection import FILE

A = "https://a.example"


class Read(SQLiteStore):
    """Counts how often its rotations were read, and can be out of order."""

    reads = 0
    broken = False

    async def rotations(self):
        try:
            if self.broken:
                raise StoreError("the disk is gone")
            return await super().rotations()
        finally:
            self.reads += 1

    async def until_read(self):
        """Once more from the beginning."""
        before = self.reads
        async with asyncio.timeout(60):
            while self.reads == before:
                await asyncio.sleep(0.001)
        for _ in range(5):  # what was read is taken in
            await asyncio.sleep(0)


@asynccontextmanager
async def node(folder):
    """A store, its clock and its key ring, which follows."""
    store = await Read.open(folder)
    clock, keys = ManualClock(), KeyRing(bytes(32))
    follower = asyncio.ensure_future(RotationFollower(store, clock, keys).run())
    try:
        await store.until_read()
        yield store, clock, keys
    finally:
        follower.cancel()
        await asyncio.gather(follower, return_exceptions=True)
        await store.close()


def rotate_elsewhere(folder, number, now):
    """As another process commits it."""
    with closing(sqlite3.connect(folder / FILE)) as db, db:
        db.execute(
            "INSERT INTO rotation (number, origin, at, until) VALUES (?, ?, ?, ?)", (number, A, now, now)
        )


def newest(keys):
    return keys.generations(A)[0].number


def test_one_of_this_node_is_in_force_before_any_time_has_passed(tmp_path):
    async def story():
        async with node(tmp_path) as (store, clock, keys):
            await store.rotate(A, clock.now(), clock.now())
            await store.until_read()
            assert newest(keys) == 1

    asyncio.run(story())


def test_one_of_another_process_is_in_force_a_second_later(tmp_path):
    async def story():
        async with node(tmp_path) as (store, clock, keys):
            await asyncio.to_thread(rotate_elsewhere, tmp_path, 1, clock.now())
            clock.advance(EVERY - 1)
            await asyncio.sleep(0.01)
            assert (store.reads, newest(keys)) == (1, 0)
            clock.advance(1)
            await store.until_read()
            assert newest(keys) == 1

    asyncio.run(story())


def test_a_store_that_cannot_be_read_is_waited_out_and_told_of_once(tmp_path, caplog):
    async def story():
        async with node(tmp_path) as (store, clock, keys):
            store.broken = True
            await asyncio.to_thread(rotate_elsewhere, tmp_path, 1, clock.now())
            for _ in range(3):
                clock.advance(EVERY)
                await store.until_read()
            assert newest(keys) == 0
            store.broken = False
            clock.advance(EVERY)
            await store.until_read()
            assert newest(keys) == 1

    with caplog.at_level(logging.ERROR, "crewcast.keys"):
        asyncio.run(story())
    assert [record.getMessage() for record in caplog.records] == [
        "rotations of secrets cannot be read, those known stay in force: the disk is gone"
    ]
