"""What only the SQLite store has: a folder that one process holds, a schema, a disk, a committer."""

import asyncio
import os
import resource
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from crewcast.core import run as runs
from crewcast.core.errors import StoreError, StoreFull, StoreHeld, StoreUnusable
from crewcast.core.event import Channel, Event
from crewcast.core.run import RunState
from crewcast.store.migrations import Migration
from crewcast.store.protocol import IdempotencyKey, Removal, Store
from crewcast.store.session import parse_queries
from crewcast.store.sqlite import SQLiteStore, committer, connection, session
from crewcast.store.sqlite.committer import Verb, Write
from crewcast.store.tail import Tail
from tests.contract.store.world import (
    ALL,
    AT_ONCE,
    BUSY,
    DAY,
    NOW,
    WORKER,
    append,
    claimed,
    decided,
    event,
    goes_on,
    lane,
    new_run,
    paused,
    running,
    sent,
    settlement,
)

FILE = connection.FILE
A, B = "https://a.example/hook", "https://b.example/hook"


def holder(folder: Path) -> subprocess.Popen[str]:
    """Another process that holds `folder` until its stdin closes."""
    script = (
        "import asyncio, sys; from pathlib import Path; from crewcast.store.sqlite import SQLiteStore\n"
        "asyncio.run(SQLiteStore.open(Path(sys.argv[1])))\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def modes(folder: Path) -> dict[str, int]:
    found = {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}
    return found | {".": stat.S_IMODE(folder.stat().st_mode)}


def foreign(folder: Path, content: bytes) -> None:
    folder.mkdir()
    (folder / FILE).write_bytes(content)


# --- the folder -----------------------------------------------------------------------------


async def test_one_process_holds_the_folder_and_its_lock_dies_with_it(folder: Path):
    with holder(folder) as process:
        with pytest.raises(StoreHeld) as caught:
            await SQLiteStore.open(folder)
        assert str(folder) in str(caught.value)
        assert str(process.pid) in str(caught.value)
        process.kill()
    await (await SQLiteStore.open(folder)).close()


async def test_the_same_process_cannot_open_it_twice(store: Store, folder: Path):
    with pytest.raises(StoreHeld, match=str(os.getpid())):
        await SQLiteStore.open(folder)


async def test_only_the_owner_reads_it(store: Store, folder: Path):
    await running(store, ALL)
    assert modes(folder) == {".": 0o700} | dict.fromkeys([FILE, f"{FILE}-wal", f"{FILE}-shm", "lock"], 0o600)


async def test_closing_leaves_one_file_and_everything_in_it(folder: Path):
    store = await SQLiteStore.open(folder)
    run = await append(store, await running(store, ALL), Channel.STEP)
    await store.close()
    assert set(modes(folder)) == {".", FILE, "lock"}
    store = await SQLiteStore.open(folder)
    assert await store.run(run.id) == run
    assert await store.events(run.id) == [event(run, 1)]
    await store.close()


async def test_a_waiting_run_and_who_hears_it_are_there_after_a_restart(folder: Path):
    store = await SQLiteStore.open(folder)
    run = await append(store, await running(store, ALL, url=A), Channel.STEP)
    run, asked = await paused(store, run, expires_at=NOW + 9, remind_every=2)
    run = await goes_on(store, await decided(store, run, asked, subscriptions=[lane(run, 1, ALL, B)]))
    assert await store.append(run, [], WORKER, journal={"run": b"1"})
    run, asked = await paused(store, await append(store, run, Channel.STEP), 2, expires_at=NOW + 9)
    await store.close()

    store = await SQLiteStore.open(folder)
    assert await store.run(run.id) == run
    assert await store.due_reviews(NOW + 9, 9) == [asked]
    assert await store.journal(run.id) == {"run": b"1"}
    run = await goes_on(store, await decided(store, run, asked, subscriptions=[lane(run, 1, ALL, A)]))
    run = await append(store, run, Channel.STEP)
    await store.close()

    store = await SQLiteStore.open(folder)
    run = await append(store, run, Channel.STEP)
    numbers = [await sent(store, one) for one in await claimed(store)]
    assert numbers == [[(1, 1), (2, 2), (3, 5), (4, 6)], [(1, 3), (2, 4)]]
    await store.close()


async def test_numbers_go_on_after_a_restart(folder: Path):
    store = await SQLiteStore.open(folder)
    run = await append(store, await running(store, ALL), Channel.STEP, Channel.STEP)
    (mine,) = await claimed(store)
    written = settlement(mine, event(run, 1))
    assert await store.settle(written)
    await store.close()
    store = await SQLiteStore.open(folder)
    assert await store.settle(settlement(written.lane, event(run, 2)))
    assert [(number, made.seq) for number, made in await store.attempts(run.id)] == [(1, 1), (2, 2)]
    await store.close()


async def test_numbers_go_on_after_the_newest_were_removed(folder: Path):
    """A page that somebody reads by number would else miss what comes."""
    store = await SQLiteStore.open(folder)
    run = await append(store, await running(store, ALL), Channel.STEP, Channel.STEP)
    (mine,) = await claimed(store)
    lost = settlement(mine, event(run, 1), policy=AT_ONCE, outcome=BUSY)
    assert await store.settle(lost)
    assert await store.settle(
        settlement(lost.lane, event(run, 2), policy=AT_ONCE, outcome=BUSY, release=True)
    )
    assert [dead.number for dead in await store.undelivered()] == [1, 2]
    assert await store.append(runs.end(run, RunState.FAILED, NOW), [], WORKER)
    assert await store.delete_run(run.id) is Removal.HIDDEN
    while await store.sweep(100):
        pass
    await store.close()
    store = await SQLiteStore.open(folder)
    run = await append(store, await running(store, ALL), Channel.STEP)
    (mine,) = await claimed(store)
    assert await store.settle(settlement(mine, event(run, 1), policy=AT_ONCE, outcome=BUSY))
    assert [number for number, _ in await store.attempts(run.id)] == [3]
    assert [dead.number for dead in await store.undelivered()] == [3]
    await store.close()


# --- what cannot be used --------------------------------------------------------------------


async def refused(folder: Path, match: str) -> None:
    with pytest.raises(StoreUnusable, match=match) as caught:
        await SQLiteStore.open(folder)
    assert str(folder) in str(caught.value)


async def test_a_file_is_not_a_folder(tmp_path: Path):
    (tmp_path / "file").touch()
    await refused(tmp_path / "file", "name a folder that can be written")
    await refused(tmp_path / "file" / "below", "name a folder that can be written")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_a_folder_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "folder").mkdir(0o500)
    await refused(tmp_path / "folder", "name a folder that can be written")


async def test_a_lock_that_cannot_be_opened(folder: Path):
    (folder / "lock").mkdir(parents=True)
    await refused(folder, "name a folder that can be written")


async def test_not_a_database(folder: Path):
    foreign(folder, b"something else entirely, and long enough to have a header" * 99)
    await refused(folder, "restore a backup")


async def test_a_damaged_database(folder: Path):
    await (await SQLiteStore.open(folder)).close()
    with (folder / FILE).open("r+b") as file:
        file.seek(100)
        file.write(os.urandom(30_000))
    await refused(folder, "restore a backup")


async def test_the_database_of_another_application(folder: Path):
    foreign(folder, b"")
    db = sqlite3.connect(folder / FILE)
    db.execute("CREATE TABLE theirs (x)")
    db.close()
    await refused(folder, "another application")
    db = sqlite3.connect(folder / FILE)
    assert db.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    db.close()


async def changed(folder: Path, sql: str) -> None:
    await (await SQLiteStore.open(folder)).close()
    db = sqlite3.connect(folder / FILE)
    db.execute(sql)
    db.commit()
    db.close()


async def test_a_newer_schema(folder: Path):
    await changed(folder, "PRAGMA user_version = 999")
    await refused(folder, "upgrade Crewcast")


async def test_a_migration_that_was_changed_after_it_was_applied(folder: Path):
    await changed(folder, "UPDATE migration SET sha256 = 'other'")
    await refused(folder, "install the version that wrote it")


def test_an_old_sqlite(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 36, 0))
    with pytest.raises(StoreUnusable, match="use another Python"):
        connection.open_folder(folder)
    assert not folder.exists()


async def test_a_refused_folder_is_let_go(folder: Path):
    await changed(folder, "PRAGMA user_version = 999")
    await refused(folder, "upgrade Crewcast")
    db = sqlite3.connect(folder / FILE)
    db.execute(f"PRAGMA user_version = {len(connection.load_migrations())}")
    db.close()
    await (await SQLiteStore.open(folder)).close()


def test_a_migration_that_fails_leaves_nothing(folder: Path):
    folder.mkdir()
    db = connection.connect_writer(folder / FILE)
    broken = Migration(1, "0001_broken", "CREATE TABLE a (x); CREATE TABLE a (x);")
    with pytest.raises(StoreError):
        connection.migrate(db, folder / FILE, [broken])
    assert db.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,)
    connection.migrate(db, folder / FILE, connection.load_migrations())
    number = len(connection.load_migrations()) + 1
    later = Migration(number, "later", "CREATE TABLE later (x INTEGER) STRICT;")
    connection.migrate(db, folder / FILE, [*connection.load_migrations(), later])
    assert db.execute("PRAGMA user_version").fetchone() == (number,)
    db.close()


def test_the_promises_of_the_connection(folder: Path):
    folder.mkdir()
    db = connection.connect_writer(folder / FILE)
    pragmas = {
        name: db.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "page_size")
    }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "page_size": connection.PAGE_SIZE}
    db.close()


async def test_a_new_folder_is_on_the_disk_before_anything_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A name that was not synced may be gone after a power cut, with all that was synced below it."""
    synced: list[int] = []
    fsync = os.fsync

    def watched(handle: int) -> None:
        fsync(handle)
        synced.append(os.fstat(handle).st_ino)

    monkeypatch.setattr(os, "fsync", watched)
    folder = tmp_path / "new" / "data"
    await (await SQLiteStore.open(folder)).close()
    assert sorted(synced) == sorted(one.stat().st_ino for one in (tmp_path, tmp_path / "new", folder))
    synced.clear()
    await (await SQLiteStore.open(folder)).close()
    assert synced == []


# --- copies ---------------------------------------------------------------------------------


def shell(file: Path, sql: str) -> None:
    """As the `sqlite3` program does it, in a process of its own."""
    script = "import sqlite3, sys; sqlite3.connect(sys.argv[1], isolation_level=None).execute(sys.argv[2])"
    subprocess.run([sys.executable, "-c", script, str(file), sql], check=True)


async def test_a_backup_beside_a_server_that_commits_is_one_state_of_everything(
    store: SQLiteStore, folder: Path, tmp_path: Path
):
    run = await append(store, await running(store, ALL), *[Channel.STEP] * 500)
    copy = tmp_path / "copy" / FILE
    copy.parent.mkdir()
    made = asyncio.create_task(asyncio.to_thread(shell, folder / FILE, f"VACUUM INTO '{copy}'"))
    while not made.done():
        run = await append(store, run, Channel.STEP, Channel.TASK)
    await made
    restored = await SQLiteStore.open(copy.parent)
    found = await restored.run(run.id)
    assert found is not None
    assert 500 <= found.seq <= run.seq
    (mine,) = await restored.lanes(run.id)
    assert (mine.tail, mine.total) == (found.seq, found.seq)
    log = await restored.events(run.id, limit=run.seq)
    assert log == (await store.events(run.id, limit=run.seq))[: found.seq]
    await append(restored, found, Channel.STEP)
    await restored.close()


async def test_what_was_removed_is_in_the_file_until_it_is_compacted(folder: Path):
    said = b"what nobody needs to know any more " * 1000
    store = await SQLiteStore.open(folder)
    kept, run = await append(store, await running(store, ALL), Channel.STEP), await running(store)
    after = replace(runs.end(run, RunState.COMPLETED, NOW), seq=1)
    assert await store.append(after, [Event(run.id, 1, Channel.CREW, "crew.completed", said, NOW)], WORKER)
    assert await store.delete_run(run.id) is Removal.HIDDEN
    while await store.sweep(1000):
        pass
    await store.close()
    file = folder / FILE
    assert said[:4096] in file.read_bytes()
    large = file.stat().st_size
    shell(file, "VACUUM")
    assert said[:35] not in file.read_bytes()
    assert file.stat().st_size < large
    store = await SQLiteStore.open(folder)
    assert [event.seq for event in await store.events(kept.id)] == [1]
    await store.close()


# --- a full disk ----------------------------------------------------------------------------

FULL_DISK = """
import asyncio, os, resource, sys
from pathlib import Path
from msgspec.structs import replace
from crewcast.core.errors import StoreFull
from crewcast.core.event import Channel, Event
from crewcast.store.sqlite import SQLiteStore
from tests.contract.store.world import ALL, NOW, WORKER, running

async def main(folder):
    store = await SQLiteStore.open(folder)
    run = await running(store, ALL)

    def write(count):
        nonlocal run
        events = [Event(run.id, run.seq + n, Channel.STEP, "step", os.urandom(1000), NOW) for n in range(1, count + 1)]
        run = replace(run, seq=run.seq + count)
        return store.append(run, events, WORKER)

    assert await write(5)
    size = max(file.stat().st_size for file in folder.iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100_000, resource.RLIM_INFINITY))
    full, before = 0, run
    for count in (200, 1, 300):
        try:
            assert await write(count)
            before = run
        except StoreFull as e:
            assert "Make room" in str(e), e
            full += 1
            run = before
    assert full == 2, full
    stored = await store.run(run.id)
    assert stored.seq == before.seq == 6, (stored, before)
    assert [e.seq for e in await store.events(run.id)] == [1, 2, 3, 4, 5, 6]
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    for count in (300, 1):
        assert await write(count)
    assert len(await store.events(run.id, limit=1000)) == 307
    await store.close()
    store = await SQLiteStore.open(folder)
    assert [e.seq for e in await store.events(run.id, limit=1000)] == list(range(1, 308))
    await store.close()
    print("recovered")

asyncio.run(main(Path(sys.argv[1])))
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no limit on file sizes here")
def test_a_full_disk_refuses_what_does_not_fit_and_nothing_later(folder: Path):
    """The limit on file sizes stands for the full disk: the write fails half-way, as there."""
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(folder)],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "recovered\n", done.stderr
    # Full twice, since one small write fitted in between: each beginning and each end is said once.
    said = ["cannot grow" if "cannot grow" in line else "goes on" for line in done.stderr.splitlines()]
    assert said == ["cannot grow", "goes on", "cannot grow", "goes on"], done.stderr


async def test_the_engine_says_full(store: SQLiteStore, folder: Path):
    """SQLITE_FULL itself, by the engine's own limit on the number of pages."""
    run = await running(store, ALL)
    db = store._writes.connection
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    db.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(StoreFull):
        await append(store, run, *[Channel.STEP] * 2000)
    assert await store.events(run.id) == []
    db.execute("PRAGMA max_page_count = 4294967294")
    await append(store, run, *[Channel.STEP] * 2000)


# --- the committer --------------------------------------------------------------------------


def statements(store: SQLiteStore) -> list[str]:
    seen: list[str] = []
    store._writes.connection.set_trace_callback(seen.append)
    return seen


@asynccontextmanager
async def committer_at_work(store: SQLiteStore) -> AsyncIterator[None]:
    """In the middle of a transaction until the end of the block: what is queued meanwhile is queued together."""
    begun, go_on = threading.Event(), threading.Event()

    def wait(values: Sequence[None]) -> list[None]:
        begun.set()
        assert go_on.wait(60)
        return list(values)

    working = store.committer.put(Verb(0, wait), None)
    await asyncio.to_thread(begun.wait, 60)
    try:
        yield
    finally:
        go_on.set()
        await working


async def test_writes_that_are_queued_together_share_a_commit(store: SQLiteStore):
    made = [await running(store, ALL) for _ in range(60)]
    seen = statements(store)
    async with committer_at_work(store):
        appending = [asyncio.ensure_future(append(store, run, Channel.STEP)) for run in made]
        await asyncio.sleep(0)
    await asyncio.gather(*appending)
    assert seen.count("COMMIT") == 2  # the first is that of the block
    lanes = {one.run_id: one for one in await claimed(store)}
    seen.clear()
    async with committer_at_work(store):
        writing = [
            asyncio.ensure_future(store.settle(settlement(lanes[run.id], event(run, 1)))) for run in made
        ]
        await asyncio.sleep(0)
    assert all(await asyncio.gather(*writing))
    assert seen.count("COMMIT") == 2
    assert sum(text.startswith("INSERT") for text in seen) == 1


async def test_outcomes_gather_until_somebody_waits_for_a_write(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
):
    run = await append(store, await running(store, ALL), Channel.STEP, Channel.STEP)
    monkeypatch.setattr(committer, "BUSY", 1)
    monkeypatch.setattr(committer, "PATIENCE", 60)
    seen = statements(store)
    [lane] = await claimed(store)
    seen.clear()
    writing = store.settle(settlement(lane, event(run, 1)))
    await asyncio.sleep(0.05)  # more than what every write waits
    async with asyncio.timeout(30):
        await append(store, run, Channel.STEP)
        assert await writing
    assert seen.count("COMMIT") == 1


async def test_the_log_is_never_behind_a_run_that_was_read(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
):
    """A commit is in the file a moment before the loop hears of it."""
    run = await append(store, await running(store, ALL), Channel.STEP)
    unheard: list[list[Write]] = []
    hear = store.committer._resolve
    monkeypatch.setattr(store.committer, "_resolve", unheard.append)
    writing = asyncio.ensure_future(append(store, run, Channel.STEP))
    async with asyncio.timeout(30):
        while (found := await store.run(run.id)) is None or found.seq < 2:
            await asyncio.sleep(0)
    assert [event.seq for event in await store.events(run.id)] == [1, 2]
    async with asyncio.timeout(30):
        while not unheard:
            await asyncio.sleep(0)
    monkeypatch.undo()  # not before: the committer's thread looks it up after its commit
    hear(unheard[0])
    await writing


async def test_a_write_that_fails_does_not_fail_its_neighbours(store: SQLiteStore):
    made = [await running(store, ALL) for _ in range(12)]
    writing = [asyncio.ensure_future(append(store, run, Channel.STEP)) for run in made[:4]]
    broken = replace(made[4], seq=1, completed_tasks=None)  # refused by the schema
    guilty = asyncio.ensure_future(store.append(broken, [event(made[4], 1)], WORKER))
    odd = asyncio.ensure_future(store.append(replace(made[5], seq=1), [event(made[6], 1)], WORKER))
    known = asyncio.ensure_future(store.create_run(made[0], [], None, NOW))
    writing += [asyncio.ensure_future(append(store, run, Channel.STEP)) for run in made[7:]]
    await asyncio.gather(*writing)
    for failed in (guilty, known):
        with pytest.raises(StoreError, match="Nothing was written"):
            await failed
    with pytest.raises(ValueError, match="number"):
        await odd
    assert [len(await store.events(run.id)) for run in made] == [1] * 4 + [0] * 3 + [1] * 5


async def test_a_caller_that_was_cancelled_harms_nobody(store: SQLiteStore):
    made = [await running(store, ALL) for _ in range(3)]
    writing = [asyncio.ensure_future(append(store, run, Channel.STEP)) for run in made]
    await asyncio.sleep(0)
    writing[1].cancel()
    await asyncio.gather(*writing, return_exceptions=True)
    await append(store, await running(store), Channel.STEP)
    assert [len(await store.events(run.id)) for run in made] == [1, 1, 1]


async def test_a_listener_that_fails_harms_nobody(store: SQLiteStore, caplog: pytest.LogCaptureFixture):
    def broken(hint: object, run_id: str) -> None:
        raise RuntimeError("not mine")

    store.listen(broken)
    await append(store, await running(store), Channel.STEP)
    assert "not mine" in caplog.text


async def test_the_death_of_the_committer_ends_the_process(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    died: list[bool] = []
    store = await SQLiteStore.open(folder, on_death=lambda: died.append(True))
    run = await running(store, ALL)

    def broken(*args: object, **kwargs: object) -> None:
        raise SystemExit("a defect")

    monkeypatch.setattr(store.committer, "_transaction", broken)
    with pytest.raises(StoreError, match="a defect"):
        await append(store, run, Channel.STEP)
    assert died == [True]
    assert "the committer died" in caplog.text
    with pytest.raises(StoreError, match="a defect"):
        await append(store, run, Channel.STEP)
    await store.close()


def test_by_default_the_death_of_the_committer_is_an_exit(folder: Path):
    script = (
        "import asyncio, sys; from pathlib import Path; from crewcast.store.sqlite import SQLiteStore\n"
        "async def main():\n"
        "    store = await SQLiteStore.open(Path(sys.argv[1]))\n"
        "    store.committer._transaction = None\n"
        "    store.committer._roll_back = None\n"
        "    await store.renew_runs('x', 1)\n"
        "asyncio.run(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 70
    assert "the committer died" in done.stderr


async def test_no_write_is_larger_than_a_statement_takes(store: SQLiteStore):
    run = await running(store, ALL)
    run = await append(store, run, *[Channel.STEP] * (2 * session.MOST_ROWS + 3))
    (mine,) = await claimed(store)
    writing = []
    for seq in range(1, run.seq + 1):
        written = settlement(mine, event(run, seq))
        mine = written.lane
        writing.append(asyncio.ensure_future(store.settle(written)))
    assert all(await asyncio.gather(*writing))
    assert [made.seq for _, made in await store.attempts(run.id)] == list(range(1, run.seq + 1))


async def test_old_idempotency_keys_are_removed_a_few_at_a_time(store: SQLiteStore):
    def key(n: int) -> IdempotencyKey:
        return IdempotencyKey("token", f"key-{n}", b"f")

    def kept() -> int:
        (count,) = store._writes.connection.execute("SELECT count(*) FROM idempotency").fetchone()
        return int(count)

    for n in range(100):
        await store.create_run(new_run(), [], key(n), NOW)
    assert kept() == 100
    await store.create_run(new_run(), [], key(100), NOW + DAY)
    assert 50 < kept() < 101
    for n in range(101, 105):
        await store.create_run(new_run(), [], key(n), NOW + DAY)
    assert kept() == 5


# --- the schema -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE event SET body = x''",
        "UPDATE attempt SET kind = ''",
        "UPDATE run SET state = 'lost'",
        "UPDATE run SET lease_token = NULL",
        "UPDATE run SET state = 'queued'",
        "UPDATE run SET state = 'completed', lease_token = NULL, lease_until = NULL",
        "UPDATE run SET seq = -1",
        "UPDATE run SET seq = 'x'",
        "UPDATE lane SET cursor = tail + 1",
        "UPDATE lane SET lease_until = NULL",
        "UPDATE lane SET lease_token = NULL, lease_until = NULL, due_at = NULL",
        "UPDATE run SET continues = 1",
        "UPDATE run SET state = 'waiting', lease_token = NULL, lease_until = NULL",
        "UPDATE review SET state = 'lost'",
        "UPDATE review SET state = 'decided'",
        "UPDATE review SET state = 'void'",
        "UPDATE review SET decision = 'approve'",
        "UPDATE review SET due_at = NULL, state = 'decided', decision = 'maybe', decided_at = 1",
        "INSERT INTO review (run, number, task_id, place, uuid, agent, output, asked_at, reminders, state, feedback, pass_feedback) SELECT run, 2, '', 1, '', '', '', 1, 0, 'pending', '', 1 FROM review",
        "INSERT INTO subscription (run, lane, first, last, channels) VALUES (1, 1, 3, 2, 1)",
        "INSERT INTO event (run, seq, channel, type, at, run_attempt, body) SELECT run, seq, 1, '', 0, 1, x'' FROM event",
        "INSERT INTO event (run, seq, channel, type, at, run_attempt, body) SELECT key, 0, 1, '', 0, 1, x'' FROM run",
    ],
)
async def test_the_schema_repeats_the_invariants(store: SQLiteStore, sql: str):
    run = await append(store, await running(store, ALL), Channel.STEP, Channel.STEP)
    (mine,) = await claimed(store)
    assert await store.settle(settlement(mine, event(run, 1)))
    await paused(store, await running(store), expires_at=NOW + 9)
    with pytest.raises(sqlite3.IntegrityError):
        store._writes.connection.execute(sql)


# --- parts ----------------------------------------------------------------------------------


def test_queries_are_parsed():
    text = "-- about the file\n\n-- name: one\n-- Why.\nSELECT 1\n\n-- --- part\n\n-- name: two\n-- Why\n-- not.\nSELECT\n  2\n"
    assert parse_queries(text) == {"one": "SELECT 1", "two": "SELECT\n  2"}
    with pytest.raises(ValueError, match="two queries are named one"):
        parse_queries(text.replace("two", "one"))


def test_the_tail_keeps_to_its_room_and_has_no_gaps():
    tail = Tail(room=20_000)
    run, other = new_run(), new_run()
    for seq in range(1, 30):
        tail.add(run.id, [event(run, seq)])
    assert tail.after(run.id, 27, 9, ALL) == [event(run, 28), event(run, 29)]
    assert tail.after(run.id, 29, 9, ALL) == []
    assert tail.after(run.id, 5, 2, Channel.STEP) == [event(run, 6), event(run, 7)]
    assert tail.after(run.id, 5, 2, Channel.TASK) == []
    tail.add(run.id, [])
    for seq in range(1, 30):
        tail.add(other.id, [event(other, seq)])
    assert tail.after(run.id, 27, 9, ALL) is None
    assert tail.after(other.id, 0, 1, ALL) == [event(other, 1)]
    tail = Tail()
    tail.add(run.id, [event(run, seq) for seq in range(1, 2000)])
    assert tail.after(run.id, 0, 9, ALL) is None
    assert tail.after(run.id, 1990, 2, ALL) == [event(run, 1991), event(run, 1992)]


async def test_a_log_longer_than_its_tail_is_read_from_the_file(store: SQLiteStore):
    run = await running(store)
    for _ in range(4):
        run = await append(store, run, *[Channel.STEP] * 500)
    found: list[Event] = []
    while page := await store.events(run.id, found[-1].seq if found else 0, 300):
        found += page
    assert [one.seq for one in found] == list(range(1, 2001))
