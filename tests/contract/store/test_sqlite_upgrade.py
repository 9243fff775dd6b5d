"""A file that an earlier Crewcast has written opens, with everything in it, and work goes on."""

import re
import sqlite3
from pathlib import Path

import pytest
from msgspec.structs import replace

from crewcast.core import run as runs
from crewcast.core.errors import StoreUnusable
from crewcast.core.event import Channel
from crewcast.core.lane import Lane, Verdict
from crewcast.core.run import RunState
from crewcast.store.protocol import Created, IdempotencyKey, Removal
from crewcast.store.sqlite import SQLiteStore, connection
from tests.contract.store.world import (
    DISPATCHER,
    LEASE,
    NOW,
    SECOND,
    WORKER,
    append,
    claimed,
    decided,
    delivered,
    event,
    new_run,
    paused,
    sent,
    settlement,
)

ENDED, AT_WORK, QUEUED, RETRYING = (f"01977420-dc00-7000-8000-00000000000{n}" for n in (1, 2, 3, 4))

# As schema 1 keeps them. `ended` has a lane that gave one event up and one that its subscriber closed;
# `at work` was cut by a crash, with a leased lane; `retrying` waits for its fourth attempt.
ROWS = f"""
INSERT INTO run (key, id, crew, state, created_at, started_at, finished_at, attempt, seq, total_tasks,
                 completed_tasks, current_task, lease_token, lease_until, error, error_detail) VALUES
    (1, '{ENDED}', 'crew', 'completed', {NOW}, {NOW}, {NOW + 9}, 1, 4, 1, 1, NULL, NULL, NULL, NULL, NULL),
    (2, '{AT_WORK}', 'crew', 'running', {NOW}, {NOW}, NULL, 1, 3, NULL, 0, 'write', 'worker-1', {NOW + LEASE}, NULL, NULL),
    (3, '{QUEUED}', 'crew', 'queued', {NOW}, NULL, NULL, 0, 0, NULL, 0, NULL, NULL, NULL, NULL, NULL),
    (4, '{RETRYING}', 'crew', 'failed', {NOW}, {NOW}, {NOW + 5}, 1, 3, 2, 1, NULL, NULL, NULL, 'why', 'where');
INSERT INTO kickoff (run, inputs, meta, options, token)
    SELECT key, CAST('{{"topic": "x"}}' AS BLOB), NULL, NULL, 'token-1' FROM run;
INSERT INTO event (run, seq, channel, type, at, run_attempt, task_id, body, whole) VALUES
    (1, 1, 1, 'task.completed', {NOW}, 1, 'task', x'01', NULL),
    (1, 2, 2, 'step', {NOW}, 1, 'task', x'02', x'02ff'),
    (1, 3, 2, 'step', {NOW}, 1, 'task', x'03', NULL),
    (1, 4, 4, 'crew.completed', {NOW + 9}, 1, NULL, x'04', NULL),
    (2, 1, 2, 'step', {NOW}, 1, NULL, x'01', NULL),
    (2, 2, 1, 'task.completed', {NOW}, 1, NULL, x'02', NULL),
    (2, 3, 2, 'step', {NOW}, 1, NULL, x'03', NULL),
    (4, 1, 2, 'step', {NOW}, 1, NULL, x'01', NULL),
    (4, 2, 1, 'task.completed', {NOW}, 1, NULL, x'02', NULL),
    (4, 3, 4, 'crew.error', {NOW + 5}, 1, NULL, x'03', NULL);
INSERT INTO attempt (id, previous, run, lane, seq, number, at, verdict, kind, status, retry_after, duration, detail) VALUES
    (1, NULL, 1, 1, 1, 1, {NOW}, 'accepted', 'ok', 200, NULL, 5, NULL),
    (2, 1, 1, 1, 2, 1, {NOW}, 'gave_up', 'status:404', 404, NULL, 5, 'no such hook'),
    (3, NULL, 1, 2, 2, 1, {NOW}, 'closed', 'status:410', 410, NULL, 5, NULL),
    (4, 2, 1, 1, 3, 1, {NOW}, 'accepted', 'ok', 200, NULL, 5, NULL),
    (5, 4, 1, 1, 4, 1, {NOW + 9}, 'accepted', 'ok', 200, NULL, 5, NULL),
    (6, NULL, 2, 1, 1, 1, {NOW}, 'accepted', 'ok', 200, NULL, 5, NULL),
    (7, NULL, 4, 1, 2, 3, {NOW}, 'retry', 'refused', NULL, NULL, 5, NULL);
INSERT INTO lane (run, number, url, origin, channels, cursor, tail, settled, tries, due_at, closed, lease_token,
                  lease_until, last_attempt) VALUES
    (1, 1, 'https://a.example/hook', 'https://a.example', 31, 4, 4, 4, 0, NULL, NULL, NULL, NULL, 5),
    (1, 2, 'https://b.example/hook', 'https://b.example', 2, 2, 3, 1, 0, NULL, 'gone', NULL, NULL, 3),
    (2, 1, 'https://a.example/hook', 'https://a.example', 2, 1, 3, 1, 0, {NOW}, NULL, 'old', {NOW + LEASE}, 6),
    (2, 2, 'https://a.example/crew', 'https://a.example', 4, 0, 0, 0, 0, NULL, NULL, NULL, NULL, NULL),
    (4, 1, 'https://a.example/hook', 'https://a.example', 5, 0, 3, 0, 3, {NOW + 60 * SECOND}, NULL, NULL, NULL, 7);
INSERT INTO dead_letter (run, lane, seq, at, reason) VALUES
    (1, 1, 2, {NOW}, 'status:404'), (1, 2, 2, {NOW}, 'gone'), (1, 2, 3, {NOW + 1}, 'gone');
INSERT INTO idempotency (token, key, fingerprint, run_id, at) VALUES ('token-1', 'key-1', x'66', '{ENDED}', {NOW});
"""


@pytest.fixture
def old(folder: Path) -> Path:
    """A data folder as schema 1 left it."""
    connection.open_folder(folder).release()
    db = connection.connect_writer(folder / connection.FILE)
    connection.migrate(db, folder / connection.FILE, connection.load_migrations()[:1])
    assert db.execute("PRAGMA user_version").fetchone() == (1,)
    db.executescript(ROWS)
    db.close()
    return folder


async def test_everything_of_the_previous_schema_is_there(old: Path):
    store = await SQLiteStore.open(old)
    ended, at_work, retrying = [await store.run(run_id) for run_id in (ENDED, AT_WORK, RETRYING)]
    assert ended is not None
    assert at_work is not None
    assert retrying is not None
    assert (ended.state, ended.seq, ended.finished_at) == (RunState.COMPLETED, 4, NOW + 9)
    assert (retrying.error, retrying.error_detail) == ("why", "where")
    assert [run.id for run in await store.running_runs()] == [AT_WORK]
    found = await store.events(ENDED)
    assert [(one.seq, one.body, one.whole) for one in found] == [
        (1, b"\x01", None),
        (2, b"\x02", b"\x02\xff"),
        (3, b"\x03", None),
        (4, b"\x04", None),
    ]
    assert [(number, made.lane, made.seq) for number, made in await store.attempts(ENDED)] == [
        (1, 1, 1),
        (2, 1, 2),
        (3, 2, 2),
        (4, 1, 3),
        (5, 1, 4),
    ]
    plain = [
        (lane.settled, lane.total, lane.refusals, lane.ordered, lane.fixed)
        for lane in await store.lanes(ENDED)
    ]
    assert plain == [(4, 4, 0, True, False), (1, 2, 0, True, False)]
    assert [(lane.settled, lane.total) for lane in await store.lanes(AT_WORK)] == [(1, 2), (0, 0)]
    assert [(lane.tries, lane.total) for lane in await store.lanes(RETRYING)] == [(3, 2)]
    key = IdempotencyKey("token-1", "key-1", b"f")
    assert await store.create_run(new_run(), [], key, NOW + 1) == Created(ENDED, replayed=True)
    await store.close()


async def test_its_dead_letters_are_found_and_sent_again_with_their_numbers(old: Path):
    store = await SQLiteStore.open(old)
    expected = [(1, 2, 2, "status:404"), (2, 2, 1, "gone"), (2, 3, 2, "gone")]
    for dead in (await store.dead_letters(ENDED), await store.undelivered()):
        assert [(one.lane, one.seq, one.lane_seq, one.reason) for one in dead] == expected
    assert [one.seq for one in await store.undelivered("https://b.example")] == [2, 3]
    assert [(one.lane, one.count) for one in await store.dead_lanes(None, 0, None, 9)] == [(1, 1), (2, 2)]
    made = await store.redeliver(ENDED, now=NOW, dead_only=True)
    assert [await sent(store, lane) for lane in made] == [[(2, 2)], [(1, 2), (2, 3)]]
    for mine in await claimed(store):
        await delivered(store, mine, *[seq for _, seq in await sent(store, mine)])
    assert [one.redelivered for one in await store.dead_letters(ENDED)] == [True] * 3
    await store.close()


async def test_its_work_goes_on(old: Path):
    store = await SQLiteStore.open(old)
    await store.void_leases(NOW + 1)
    (mine,) = await claimed(store, now=NOW + 1)
    assert (mine.run_id, mine.cursor, mine.lease_token) == (AT_WORK, 1, DISPATCHER)
    assert await sent(store, mine) == [(2, 3)]
    run = await store.run(AT_WORK)
    assert run is not None
    assert await store.pending_beside(replace(mine, number=2)) == 1
    await append(store, run, Channel.STEP)
    mine = await delivered(store, mine, 3, 4)
    assert (await store.lanes(AT_WORK))[0].total == 3
    assert await store.next_due() == NOW + 60 * SECOND
    (waiting,) = await claimed(store, now=NOW + 60 * SECOND)
    assert (waiting.run_id, waiting.tries) == (RETRYING, 3)
    written = settlement(waiting, event(run, 2), now=NOW + 60 * SECOND)
    assert written.attempt.verdict is Verdict.ACCEPTED
    assert await store.settle(written)
    assert [number for number, _ in await store.attempts(RETRYING)] == [7, 10]
    assert [one.id for one in await store.claim_runs(["crew"], 9, "w", NOW, LEASE)] == [QUEUED]
    await store.close()


async def test_its_runs_expire_and_go(old: Path):
    store = await SQLiteStore.open(old)
    assert await store.expire(NOW + SECOND, 9) == [ENDED]
    assert await store.delete_run(AT_WORK) is Removal.RUNNING
    assert await store.delete_run(RETRYING) is Removal.HIDDEN
    # 4 events, 5 attempts, 3 dead letters, 2 lanes, kickoff, run; then 3, 1, 0, 1, 1, 1
    assert await store.sweep(100) == 16 + 7
    assert [run.id for run in await store.running_runs()] == [AT_WORK]
    await store.close()


def at_schema(folder: Path, number: int, rows: str) -> None:
    """A data folder as that schema left it: the rows of schema 1, and these."""
    connection.open_folder(folder).release()
    file = folder / connection.FILE
    db = connection.connect_writer(file)
    known = connection.load_migrations()
    connection.migrate(db, file, known[:1])
    db.executescript(ROWS)
    connection.migrate(db, file, known[:number])
    assert db.execute("PRAGMA user_version").fetchone() == (number,)
    db.executescript(rows)
    db.close()


# A run that was hidden and half swept: its kickoff is gone, its own row is not.
HALF_SWEPT = f"""
INSERT INTO run (key, id, crew, state, created_at, started_at, finished_at, attempt, seq, completed_tasks, hidden)
VALUES (5, '01977420-dc00-7000-8000-000000000005', 'crew', 'failed', {NOW}, NULL, {NOW}, 0, 0, 0, 1);
"""


async def test_a_replay_that_schema_3_began_sends_what_it_was_to_send(folder: Path):
    """It was asked for without a moment: all of its dead letters."""
    at_schema(
        folder,
        3,
        f"""
        INSERT INTO lane (run, number, url, origin, channels, cursor, tail, settled, tries, due_at, replay_of,
                          dead_only, total, asked_at, born) VALUES
            (1, 3, 'https://b.example/hook', 'https://b.example', 2, 1, 3, 0, 0, {NOW}, 2, 1, 2, {NOW}, 7);
        """,
    )
    store = await SQLiteStore.open(folder)
    (replay,) = await claimed(store)
    assert (replay.number, replay.dead_only) == (3, True)
    assert await sent(store, replay) == [(1, 2), (2, 3)]
    await delivered(store, replay, 2, 3)
    assert [(one.lane, one.seq) for one in await store.undelivered()] == [(1, 2)]
    await store.close()


async def test_runs_of_schema_4_wait_are_stopped_and_go_on(folder: Path):
    at_schema(folder, 4, HALF_SWEPT)
    store = await SQLiteStore.open(folder)
    ended, at_work, queued = [await store.run(run_id) for run_id in (ENDED, AT_WORK, QUEUED)]
    assert ended is not None
    assert at_work is not None
    assert queued is not None
    assert [runs.work(run, NOW + 99) for run in (ended, at_work, queued)] == [9, 99, 0]
    assert (at_work.claimed_at, at_work.continues, at_work.stop, at_work.priority) == (NOW, False, None, 0)
    assert (queued.max_attempts, queued.timeout, queued.token) == (None, None, "token-1")
    assert await store.reviews(None) == []
    assert await store.journal(AT_WORK) == {}
    assert await store.sweep(9) == 1

    assert await store.claim_runs(["crew"], 9, WORKER, NOW, LEASE, per_token=1) == []
    (claimed_run,) = await store.claim_runs(["crew"], 9, WORKER, NOW, LEASE, per_token=2)
    assert claimed_run == runs.claim(queued, WORKER, NOW, LEASE)
    assert (await store.request_stop(QUEUED, "kim") or queued).stop == "kim"
    run, asked = await paused(store, at_work)
    new = Lane(AT_WORK, 1, "https://c.example/hook", "https://c.example", Channel.STEP)
    run = await decided(store, run, asked, Channel.STEP, subscriptions=[new])
    lanes = await store.lanes(AT_WORK)
    assert [await sent(store, one) for one in lanes] == [[(2, 3)], [], [(1, 5)]]
    assert [one.channels for one in lanes] == [Channel(0), Channel(0), Channel.STEP]
    await store.close()


async def test_an_upgraded_file_is_as_a_new_one(old: Path, tmp_path: Path):
    await (await SQLiteStore.open(old)).close()
    await (await SQLiteStore.open(tmp_path / "new")).close()

    def schema(folder: Path) -> list[tuple[str, str]]:
        db = sqlite3.connect(folder / connection.FILE)
        found = db.execute(
            "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name"
        ).fetchall()
        checks = (
            db.execute("PRAGMA integrity_check").fetchall(),
            db.execute("PRAGMA foreign_key_check").fetchall(),
        )
        assert checks == ([("ok",)], [])
        db.close()
        return found

    assert schema(old) == schema(tmp_path / "new")


async def test_an_older_crewcast_says_that_the_file_is_newer(old: Path):
    await (await SQLiteStore.open(old)).close()
    db = connection.connect_writer(old / connection.FILE)
    known = connection.load_migrations()
    with pytest.raises(
        StoreUnusable, match=re.escape(f"newer Crewcast (schema {len(known)}, this one knows 1)")
    ):
        connection.migrate(db, old / connection.FILE, known[:1])
    db.close()
