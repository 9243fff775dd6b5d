"""A data folder is moved to PostgreSQL: everything is there, and work goes on as if nothing had happened."""

import asyncio
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import asyncpg
import pytest
from msgspec.structs import replace

from crewcast.core import run as runs
from crewcast.core.errors import StoreHeld, StoreUnusable, UsageError
from crewcast.core.event import Channel
from crewcast.core.node import Node, Role
from crewcast.core.origin import Health
from crewcast.core.run import RunState
from crewcast.store.moving import move
from crewcast.store.moving.tables import TABLES
from crewcast.store.postgres import PostgresStore
from crewcast.store.protocol import Created, Removal
from crewcast.store.sqlite import SQLiteStore
from crewcast.store.sqlite.connection import FILE, open_folder
from tests.contract.store.moving_world import FINGERPRINT, KEPT, KEY, World, fill, kept, lane_of, told
from tests.contract.store.test_sqlite_upgrade import AT_WORK, ENDED, at_schema
from tests.contract.store.world import (
    APPROVE,
    BUSY,
    DAY,
    LEASE,
    NOW,
    WORKER,
    append,
    claimed,
    decided,
    delivered,
    lane,
    new_run,
    one_lane,
    queued,
    sent,
)

ROOT = Path(__file__).parents[3]
LATER = NOW + 9 * DAY
PAUSED = Health("https://c.example", paused_until=NOW)


def say_nothing(doing: str, table: str, done: int, total: int) -> None:
    """Progress that nobody looks at."""


@asynccontextmanager
async def both(folder: Path, url: str) -> AsyncIterator[tuple[World, SQLiteStore, PostgresStore]]:
    """A world in SQLite as a node that starts finds it, and moved."""
    world = await fill(folder)
    await move(folder, url, say_nothing)
    old, new = await SQLiteStore.open(folder), await PostgresStore.open(url)
    await old.void_leases(NOW + DAY)
    yield world, old, new
    await old.close()
    await new.close()


# --- everything is there --------------------------------------------------------------------


async def test_every_verb_that_reads_answers_the_same(folder: Path, database_url: str):
    async with both(folder, database_url) as (world, old, new):
        before, after = await told(old, world), await told(new, world)
        # A lease that holds has lapsed with the move.
        at_work = after["at_work: run"]
        assert NOW < at_work.lease_until <= await new.time()
        at_work = before["at_work: run"] = replace(before["at_work: run"], lease_until=at_work.lease_until)
        before["running"] = [at_work if one.id == at_work.id else one for one in before["running"]]
        for what in before:
            assert after[what] == kept(before[what]), what
        assert before["deleted: run"] is None
        assert after["failed: run"].error == KEPT
        assert await new.key_fingerprint() == FINGERPRINT


async def test_the_world_has_rows_in_every_table(folder: Path, database_url: str):
    """Else the test before would say less than it seems to."""
    world = await fill(folder)
    moved = await move(folder, database_url, say_nothing)
    assert set(moved.rows) == {table.name for table in TABLES}
    assert min(moved.rows.values()) > 0
    assert moved.rows["run"] == len(world) - 1  # one was deleted
    with closing(sqlite3.connect(folder / FILE)) as db:
        states = {state for (state,) in db.execute("SELECT DISTINCT state FROM run WHERE hidden = 0")}
        hidden = db.execute(
            "SELECT count(*) FROM event JOIN run ON run.key = event.run WHERE run.hidden"
        ).fetchone()
    assert states == {state.value for state in RunState}
    assert hidden > (0,)


async def test_each_table_of_the_file_is_moved_or_is_known_to_be_left(folder: Path):
    await (await SQLiteStore.open(folder)).close()
    with closing(sqlite3.connect(folder / FILE)) as db:
        there = {
            name: {column for _, column, *_ in db.execute(f"PRAGMA table_info({name})")}
            for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        }
    left = {"migration", "sqlite_sequence", "high_water", "node", "crew"}
    assert {table.name for table in TABLES} == set(there) - left
    # Keys of rows that only SQLite has, links between them, and leases.
    only_here = {
        "run": {"hidden"},
        "lane": {"lease_token", "lease_until", "last_attempt"},
        "event": {"id"},
        "attempt": {"previous"},
        "journal": {"id"},
    }
    for table in TABLES:
        assert set(table.columns) == there[table.name] - only_here.get(table.name, set()), table.name


async def test_keys_are_in_the_order_of_creation_whatever_the_clock_said(folder: Path, database_url: str):
    store = await SQLiteStore.open(folder)
    days = [0, 9, 1, 1, 3, 2]  # the second was made with a clock that was a week ahead
    made = [replace(new_run("crew", NOW + day * DAY), seq=0) for day in days]
    for run in made:
        await store.create_run(run, [], None, NOW)
    await store.close()
    await move(folder, database_url, say_nothing)
    new = await PostgresStore.open(database_url)
    ((*keys,),) = await rows_of(database_url, "SELECT array_agg(key ORDER BY key) FROM run")
    first = NOW // DAY
    assert [key >> 40 for key in keys[0]] == [first + day for day in (0, 1, 1, 1, 2, 2)]
    last = new_run("crew", NOW + 9 * DAY)
    await new.create_run(last, [], None, NOW)
    claimed_runs = await new.claim_runs(["crew"], 9, WORKER, NOW, LEASE)
    assert [run.id for run in claimed_runs] == [run.id for run in (*made, last)]
    await new.close()


async def rows_of(url: str, query: str) -> list:
    connection = await asyncpg.connect(url, server_settings={"search_path": "crewcast"})
    try:
        return await connection.fetch(query)
    finally:
        await connection.close()


async def test_an_older_file_is_migrated_and_moved(folder: Path, database_url: str):
    at_schema(folder, 1, "")
    await move(folder, database_url, say_nothing)
    old, new = await SQLiteStore.open(folder), await PostgresStore.open(database_url)
    for run_id in (ENDED, AT_WORK):
        assert await new.events(run_id) == await old.events(run_id)
        assert await new.attempts(run_id) == await old.attempts(run_id)
        assert await new.dead_letters(run_id) == await old.dead_letters(run_id)
    assert await new.undelivered() == await old.undelivered() != []
    await old.close()
    await new.close()


async def test_an_empty_folder_is_moved(folder: Path, database_url: str):
    await (await SQLiteStore.open(folder)).close()
    moved = await move(folder, database_url, say_nothing)
    assert set(moved.rows.values()) == {0}
    new = await PostgresStore.open(database_url)
    run = await queued(new, Channel.STEP)
    assert [one.id for one in await new.claim_runs(["crew"], 9, WORKER, NOW, LEASE)] == [run.id]
    await new.close()


# --- work goes on ---------------------------------------------------------------------------


async def test_the_same_lanes_are_due_and_send_the_same(folder: Path, database_url: str):
    async with both(folder, database_url) as (_, old, new):
        found = []
        for store in (old, new):
            lanes = await claimed(store, now=LATER)
            found.append({(one.run_id, one.number): await store.lane_events(one, 99) for one in lanes})
        assert found[1] == kept(found[0])
        assert len(found[0]) > 5
        for _, number in found[0]:
            assert number


async def test_numbers_of_attempts_and_dead_letters_go_on_without_a_gap(folder: Path, database_url: str):
    async with both(folder, database_url) as (world, old, new):
        last = max([number for run_id in world for number, _ in await old.attempts(run_id)])
        letters = max(letter.number for letter in await old.undelivered())
        for store in (old, new):
            mine = next(one for one in await claimed(store, now=LATER) if one.run_id == world.at_work)
            await delivered(store, mine, 2)
            assert [number for number, _ in await store.attempts(world.at_work)][1:] == [last + 1]
            (again,) = await store.redeliver(world.closed, now=LATER)
            (again,) = [one for one in await claimed(store, now=LATER) if one.run_id == world.closed]
            await delivered(store, again, 1)
            (again,) = await store.redeliver(world.completed, now=LATER, lane=1, seq=1)
            (again,) = [one for one in await claimed(store, now=LATER) if one.run_id == world.completed]
            await delivered(store, again, 1, outcome=BUSY, now=LATER)
        ours = [(await store.dead_letters(world.completed))[-1].number for store in (old, new)]
        assert ours == [letters + 1] * 2


async def test_a_replay_of_dead_letters_sends_the_same(folder: Path, database_url: str):
    async with both(folder, database_url) as (world, old, new):
        for run_id in (world.failed, world.closed, world.replayed):
            made = [await store.redeliver(run_id, now=LATER, dead_only=True) for store in (old, new)]
            assert made[0] == made[1] != []
            for lanes in zip(*made, strict=True):
                assert await sent(old, lanes[0]) == await sent(new, lanes[1]) != []
        # The one that was asked for before sends what was dead then, with the numbers of its lane.
        asked = await lane_of(new, world.replayed, 3)
        assert (asked.dead_only, await sent(new, asked)) == (True, [(2, 2), (3, 3)])
        # What it delivers is not sent by the next.
        mine = next(
            one for one in await claimed(new, now=LATER) if (one.run_id, one.number) == (world.replayed, 3)
        )
        await delivered(new, mine, 2)
        letters = await new.dead_letters(world.replayed)
        assert [one.redelivered for one in letters if one.lane == 1] == [True, True, False]


async def test_a_waiting_run_is_decided_and_goes_on(folder: Path, database_url: str):
    async with both(folder, database_url) as (world, _, new):
        run, asked = await new.run(world.waits), await new.review(world.waits)
        assert run is not None
        assert asked is not None
        assert (asked.number, asked.output) == (2, KEPT)
        run = await decided(new, run, asked, Channel.TASK, decision=APPROVE)
        found = await new.claim_runs(["running"], 9, WORKER, NOW, LEASE)
        assert run.id in [one.id for one in found]
        after = await append(new, next(one for one in found if one.id == run.id), Channel.STEP)
        assert [one.seq for one in await new.events(run.id)] == list(range(1, after.seq + 1))
        assert (await one_lane(new, run)).tail == after.seq


async def test_what_was_running_is_found_and_taken_over(folder: Path, database_url: str):
    async with both(folder, database_url) as (world, _, new):
        lapsed = await new.lapsed_runs(await new.time(), 9)
        assert {run.id for run in lapsed} >= {world.stopped, world.at_work}
        assert {run.state for run in lapsed} == {RunState.RUNNING}
        for run in lapsed:
            assert await new.adopt(run, "worker-9", NOW + LEASE)
            mine = await new.run(run.id)
            assert mine is not None
            after = runs.requeue(mine, NOW) if run.stop is None else runs.end(mine, RunState.CANCELLED, NOW)
            assert await new.append(after, [], "worker-9")
        again = await new.claim_runs(["long"], 9, WORKER, NOW, LEASE)
        assert [(run.id, run.attempt) for run in again] == [(world.at_work, 2)]


async def test_queued_runs_are_claimed_in_their_order_and_keys_hold(folder: Path, database_url: str):
    async with both(folder, database_url) as (world, _, new):
        late = replace(new_run("crew", NOW + 3 * DAY), priority=-2)
        assert await new.create_run(late, [], None, NOW) == Created(late.id)
        found = await new.claim_runs(["crew"], 9, WORKER, NOW, LEASE)
        assert [run.id for run in found] == [world.queued, world.later, late.id]
        assert await new.create_run(new_run(), [], KEY, NOW + 1) == Created(world.failed, replayed=True)


async def test_moved_runs_expire_are_deleted_and_go(folder: Path, database_url: str):
    async with both(folder, database_url) as (world, _, new):
        assert world.completed in await new.expire(LATER, 99)
        assert await new.delete_run(world.waits) is Removal.HIDDEN
        while await new.sweep(1000):
            pass
        gone = await rows_of(database_url, "SELECT id FROM run WHERE hidden <> 0")
        assert gone == []
        assert (
            await rows_of(
                database_url, "SELECT 1 FROM review WHERE NOT EXISTS (SELECT 1 FROM run WHERE key = run)"
            )
            == []
        )
        assert await new.run(world.at_work) is not None


# --- all or nothing -------------------------------------------------------------------------

# Kills itself where it is told to, in the middle of what it does with a table.
KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from crewcast.store.moving import move

def told(doing, table, done, total):
    if (doing, table) == (sys.argv[3], sys.argv[4]) and done >= int(sys.argv[5]):
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(move(Path(sys.argv[1]), sys.argv[2], told))
print("done")
"""


def moving(folder: Path, url: str, doing: str, table: str, done: int) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-c", KILLED, str(folder), url, doing, table, str(done)]
    return subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT)


@pytest.mark.parametrize(
    ("doing", "table", "done"),
    [
        ("copying", "kickoff", 0),
        ("copying", "event", 2000),
        ("reading back", "run", 0),
        ("reading back", "master_key", 1),
    ],
)
async def test_a_kill_in_the_middle_leaves_a_database_that_can_be_moved_to(
    folder: Path, database_url: str, doing: str, table: str, done: int
):
    world = await fill(folder)
    store = await SQLiteStore.open(folder)
    run = await store.run(world.stopped)
    assert run is not None
    for _ in range(30):
        run = await append(store, run, *[Channel.STEP] * 100)
    await store.close()
    killed = moving(folder, database_url, doing, table, done)
    assert (killed.returncode, killed.stdout, killed.stderr) == (-signal.SIGKILL, "", "")
    for one in TABLES:
        assert await rows_of(database_url, f"SELECT 1 FROM {one.name} LIMIT 1") == [], one.name
    again = moving(folder, database_url, "", "", 0)
    assert (again.returncode, again.stdout, again.stderr) == (0, "done\n", "")
    new = await PostgresStore.open(database_url)
    assert await new.run(world.stopped) == replace(run, stop="kim")
    assert len(await new.events(run.id, limit=9999)) == run.seq
    await new.close()


async def test_what_cannot_be_kept_leaves_nothing(folder: Path, database_url: str):
    world = await fill(folder)
    with closing(sqlite3.connect(folder / FILE)) as db:
        # More than the type of the column can hold: an integer of SQLite is larger.
        db.execute("UPDATE run SET attempt = ? WHERE id = ?", (1 << 40, world.later))
        db.commit()
    with pytest.raises(StoreUnusable, match="has a number in run that PostgreSQL cannot keep"):
        await move(folder, database_url, say_nothing)
    for one in TABLES:
        assert await rows_of(database_url, f"SELECT 1 FROM {one.name} LIMIT 1") == [], one.name


async def test_what_is_read_back_otherwise_is_not_committed(folder: Path, database_url: str):
    """A database that changes what it is given: here, by a trigger."""
    await fill(folder)
    connection = await asyncpg.connect(database_url, server_settings={"search_path": "crewcast"})
    await connection.execute(
        """
        CREATE FUNCTION worse() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN NEW.value := substr(NEW.value, 2); RETURN NEW; END $$;
        CREATE TRIGGER worse BEFORE INSERT ON journal FOR EACH ROW WHEN (length(NEW.value) > 99) EXECUTE FUNCTION worse();
        """
    )
    await connection.close()
    with pytest.raises(StoreUnusable, match="does not give back what was written to journal"):
        await move(folder, database_url, say_nothing)
    assert await rows_of(database_url, "SELECT 1 FROM run LIMIT 1") == []


async def test_of_two_at_once_one_moves_and_the_other_says_so(
    folder: Path, tmp_path: Path, database_url: str
):
    await fill(folder)
    other = await fill(tmp_path / "other")
    ready, go = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def first() -> None:
        def told(doing: str, table: str, done: int, total: int) -> None:
            if (doing, table) == ("reading back", "event"):
                loop.call_soon_threadsafe(ready.set)
                asyncio.run_coroutine_threadsafe(go.wait(), loop).result(90)

        asyncio.run(move(folder, database_url, told))

    working = asyncio.create_task(asyncio.to_thread(first))
    await ready.wait()
    with pytest.raises(StoreUnusable, match="moved to by another `crewcast migrate`"):
        await move(tmp_path / "other", database_url, say_nothing)
    go.set()
    await working
    new = await PostgresStore.open(database_url)
    assert await new.run(other.completed) is None
    await new.close()
    with pytest.raises(StoreUnusable, match="is not empty: there are rows in run, kickoff, lane"):
        await move(tmp_path / "other", database_url, say_nothing)


async def test_a_node_that_starts_meanwhile_writes_nothing_before(folder: Path, database_url: str):
    """It would be the only run of the database, and then one of two that are mixed up."""
    await fill(folder)
    node = await PostgresStore.open(database_url)
    run = new_run("crew")
    writing: list[asyncio.Future] = []
    loop = asyncio.get_running_loop()

    def told(doing: str, table: str, done: int, total: int) -> None:
        if (doing, table) == ("reading back", "run") and not writing:  # it is told more than once
            writing.append(loop.create_task(node.create_run(run, [], None, NOW)))

    await move(folder, database_url, told)
    # It was made after the move, with a number behind all that came.
    assert await writing[0] == Created(run.id)
    ((last,),) = await rows_of(database_url, "SELECT id FROM run ORDER BY key & 1099511627775 DESC LIMIT 1")
    assert last == run.id
    await node.close()


@pytest.mark.parametrize("table", ["run", "rotation", "master_key", "origin", "idempotency"])
async def test_a_database_that_is_not_empty_is_refused(folder: Path, database_url: str, table: str):
    await fill(folder)
    store = await PostgresStore.open(database_url)
    match table:
        case "run":
            await queued(store)
        case "rotation":
            await store.rotate("", NOW, NOW)
        case "master_key":
            await store.bind_key(b"x")
        case "origin":
            await store.save_origin(PAUSED)
        case _:
            await store.create_run(new_run(), [], KEY, NOW)
            connection = await store.database.connect()
            await connection.execute("DELETE FROM kickoff; DELETE FROM run")
            await connection.close()
    await store.close()
    with pytest.raises(StoreUnusable, match=f"not empty: there are rows in {table}"):
        await move(folder, database_url, say_nothing)


async def test_a_database_with_nodes_at_work_is_refused(folder: Path, database_url: str):
    await fill(folder)
    store = await PostgresStore.open(database_url)
    now = await store.time()
    node = Node("1", "api-1", (Role.API,), "1", now, now, now + LEASE)
    await store.beat(node, {}, 0)
    with pytest.raises(StoreUnusable, match="has nodes at work: stop them first: api-1"):
        await move(folder, database_url, say_nothing)
    await store.beat(replace(node, until=now), {}, 0)
    await store.close()
    await move(folder, database_url, say_nothing)


async def test_a_folder_that_a_server_holds_is_refused(folder: Path, database_url: str):
    store = await SQLiteStore.open(folder)
    with pytest.raises(StoreHeld, match="would write what is not moved: stop it first"):
        await move(folder, database_url, say_nothing)
    await store.close()


async def test_the_folder_is_held_while_it_is_moved(folder: Path, database_url: str):
    await fill(folder)
    refused: list[bool] = []

    def told(doing: str, table: str, done: int, total: int) -> None:
        with pytest.raises(StoreHeld):
            open_folder(folder)
        refused.append(True)

    await move(folder, database_url, told)
    assert len(refused) >= 2 * len(TABLES)
    open_folder(folder).release()


async def test_a_folder_without_a_database_is_refused_and_not_made(tmp_path: Path, database_url: str):
    with pytest.raises(UsageError, match=f"there is no {FILE} in"):
        await move(tmp_path / "none", database_url, say_nothing)
    assert not (tmp_path / "none").exists()


async def test_many_events_are_moved_in_little_memory(folder: Path, database_url: str):
    """What it holds of 200 MB does not grow beyond a few of them."""
    store = await SQLiteStore.open(folder)
    run = new_run("long")
    await store.create_run(run, [lane(run)], None, NOW)
    (run,) = await store.claim_runs(["long"], 1, WORKER, NOW, LEASE)
    await store.close()
    with closing(sqlite3.connect(folder / FILE)) as db:
        db.execute("UPDATE run SET seq = 2000")
        db.execute(
            """
            INSERT INTO event (run, seq, channel, type, at, run_attempt, body)
            WITH RECURSIVE n (seq) AS (SELECT 1 UNION ALL SELECT seq + 1 FROM n WHERE seq < 2000)
            SELECT 1, seq, 2, 'step', 0, 1, randomblob(100000) FROM n
            """
        )
        db.commit()
    # Not getrusage, which has the memory of the process that forked it too.
    script = (
        KILLED
        + "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    arguments = [sys.executable, "-c", script, str(folder), database_url, "", "", "0"]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    used = int(done.stdout.split()[1]) // 1024
    # 64 MB of it are SQLite's cache, and 40 Python with asyncpg.
    assert used < 190, used
