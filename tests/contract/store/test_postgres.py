"""What only the PostgreSQL store has: a server that may be away, other nodes, partitions, an answer that gets lost."""

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from msgspec.structs import replace

from crewcast.core.errors import StoreError, StoreUnusable
from crewcast.core.event import Channel, Event
from crewcast.core.run import Run
from crewcast.store.moving import move
from crewcast.store.postgres import PostgresStore, connection, hints
from crewcast.store.postgres.connection import Database
from crewcast.store.postgres.session import load_queries
from crewcast.store.protocol import Hint
from tests.contract.store.moving_world import fill, told
from tests.contract.store.world import (
    ALL,
    DAY,
    DISPATCHER,
    LEASE,
    NOW,
    SECOND,
    WORKER,
    Heard,
    append,
    ended,
    event,
    new_run,
    one_lane,
    queued,
    running,
    sent,
    settlement,
)
from tests.support.postgres import Postgres
from tests.support.postgres import running as server_running

STEP = Channel.STEP


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """One that may be stopped: it is nobody else's. Nothing draws numbers or writes its log out but what is asked."""
    with server_running(options=("-c", "autovacuum=off", "-c", "wal_writer_delay=10s")) as made:
        yield made


@pytest.fixture
def own_url(server: Postgres, runner: asyncio.Runner) -> Iterator[str]:
    """A database on it, empty."""
    number = next(_numbers)

    async def execute(statement: str) -> None:
        found = await asyncpg.connect(server.url())
        await found.execute(statement)
        await found.close()

    runner.run(execute(f"CREATE DATABASE own_{number}"))
    yield server.url(f"own_{number}")
    runner.run(execute(f"DROP DATABASE own_{number} WITH (FORCE)"))


_numbers = iter(range(1, 1000))


async def until(what: Callable[[], bool], seconds: float = 30.0) -> None:
    for _ in range(int(seconds * 200)):
        if what():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not come to pass")


async def back(verb: Callable[[], Awaitable[Any]], seconds: float = 30.0) -> Any:
    """What a verb answers once PostgreSQL is back; until then it raises StoreError and nothing else."""
    for _ in range(int(seconds * 20)):
        try:
            return await verb()
        except StoreError:
            await asyncio.sleep(0.05)
    raise AssertionError("the store did not come back")


# --- what cannot be opened ------------------------------------------------------------------


async def refusal(url: str) -> str:
    with pytest.raises(StoreUnusable) as caught:
        await PostgresStore.open(url)
    said = str(caught.value)
    for secret in ("hush", "h%C3%BCsh", "h\u00fcsh"):
        assert secret not in said
    assert "\n" not in said
    return said


async def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    said = await refusal(f"postgresql://me:hush@127.0.0.1:{port}/crews?application_name=hush")
    assert said.startswith(f"PostgreSQL at 127.0.0.1:{port}/crews cannot be used: ")
    assert said.endswith("Check database_url, and that the database is there.")


async def test_who_listens_is_no_postgresql():
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    other = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = other.sockets[0].getsockname()[1]
    said = await refusal(f"postgresql://me:h%C3%BCsh@127.0.0.1:{port}/crews")
    assert f"PostgreSQL at 127.0.0.1:{port}/crews cannot be used" in said
    other.close()


async def test_who_listens_never_answers(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connection, "CONNECT_WITHIN", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        assert "TimeoutError" in await refusal(f"postgresql://me:hush@127.0.0.1:{port}/crews")


async def test_the_database_or_the_user_is_not_there(server: Postgres):
    place = f"127.0.0.1:{server.port}"
    said = await refusal(f"postgresql://postgres:hush@{place}/nowhere")
    assert 'database "nowhere" does not exist' in said
    said = await refusal(f"postgresql://nobody:hush@{place}/postgres")
    assert 'role "nobody" does not exist' in said


async def test_an_older_postgresql_is_refused(own_url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connection, "OLDEST", 990000)
    assert "Crewcast needs 99 or newer" in await refusal(own_url)


async def test_a_url_without_sense_is_refused():
    assert "cannot be used" in await refusal("postgresql://me:hush@127.0.0.1:port/crews")


# --- PostgreSQL goes away and comes back ----------------------------------------------------

RESTARTS = pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["fast", "immediate"])


@RESTARTS
async def test_between_two_verbs_it_restarts(server: Postgres, own_url: str, how: int):
    store = await PostgresStore.open(own_url)
    run = await append(store, await running(store, ALL), STEP, STEP)
    (mine,) = await store.claim_lanes(9, DISPATCHER, NOW, LEASE)
    server.restart(how)
    after = replace(run, seq=3)
    assert await back(lambda: store.append(after, [event(run, 3)], WORKER))
    assert await back(lambda: store.settle(settlement(mine, event(run, 1))))
    assert await back(lambda: store.lane_events(mine, 9))
    assert [one.seq for one in await back(lambda: store.events(run.id))] == [1, 2, 3]
    assert len(await back(lambda: store.attempts(run.id))) == 1
    await back(lambda: queued(store))
    await store.close()


@RESTARTS
async def test_while_it_is_away_every_verb_says_so_and_then_works_by_itself(
    server: Postgres, own_url: str, how: int
):
    store = await PostgresStore.open(own_url)
    run = await append(store, await running(store, ALL), STEP)
    (mine,) = await store.claim_lanes(9, DISPATCHER, NOW, LEASE)
    await asyncio.to_thread(server.stop, how)
    after = replace(run, seq=2)
    written = settlement(mine, event(run, 1))
    verbs: dict[str, Callable[[], Awaitable[Any]]] = {
        "append": lambda: store.append(after, [event(run, 2)], WORKER),
        "settle": lambda: store.settle(written),
        "events": lambda: store.events(run.id),
        "claim_lanes": lambda: store.claim_lanes(1, "other", NOW, LEASE),
        "claim_runs": lambda: store.claim_runs(["running"], 1, WORKER, NOW, LEASE),
        "create_run": lambda: store.create_run(new_run(), [], None, NOW),
        "delete_run": lambda: store.delete_run(run.id),
        "time": store.time,
    }
    for name, verb in verbs.items():
        with pytest.raises(StoreError, match="Nothing was written") as caught:
            await asyncio.wait_for(verb(), 30)
        assert not isinstance(caught.value, StoreUnusable), name
    await asyncio.to_thread(server.start)
    assert await back(verbs["append"]) is True
    assert await back(verbs["settle"]) is True
    assert [one.seq for one in await back(verbs["events"])] == [1, 2]
    assert await back(verbs["claim_runs"]) == []  # the one that was refused was not made
    await store.close()


async def test_a_store_closes_also_while_it_is_away(server: Postgres, own_url: str):
    store = await PostgresStore.open(own_url)
    run = await running(store, ALL)
    await asyncio.to_thread(server.stop, signal.SIGQUIT)
    with pytest.raises(StoreError):
        await next_append(store, run)
    await asyncio.wait_for(store.close(), 30)
    await asyncio.to_thread(server.start)
    again = await PostgresStore.open(own_url)
    assert await again.events(run.id) == []
    await again.close()


@RESTARTS
async def test_after_a_restart_hints_travel_again(server: Postgres, own_url: str, how: int):
    here, other = [await PostgresStore.open(own_url) for _ in range(2)]
    await asyncio.to_thread(server.restart, how)
    there = Heard(other)

    async def heard() -> bool:
        here.hints.tell([(Hint.EVENTS, "a run")])
        await asyncio.sleep(0.05)
        return (Hint.EVENTS, "a run") in there.hints

    for _ in range(600):
        if await heard():
            break
    assert (Hint.EVENTS, "a run") in there.hints
    await here.close()
    await other.close()


async def keep_writing(
    store: PostgresStore, run: Run, token: str, stop: asyncio.Event, acknowledged: list[bytes]
) -> None:
    """Appends numbered events, one after the other; what was acknowledged, in order. What was refused is written anew
    under the same number, with another body.
    """
    tried = 0
    while not stop.is_set():
        tried += 1
        after = replace(run, seq=run.seq + 1)
        body = b"%d try %d" % (after.seq, tried)
        try:
            written = await store.append(after, [Event(run.id, after.seq, STEP, "step", body, NOW)], token)
        except StoreError:
            await asyncio.sleep(0.01)
            continue
        # False would be: something is in the log that was said not to be.
        assert written, (run.id, body)
        run = after
        acknowledged.append(body)


async def keep_settling(store: PostgresStore, run: Run, token: str, stop: asyncio.Event) -> int:
    """Settles what the run's lane sends, in order; how many attempts were acknowledged."""
    lanes = await back(lambda: store.lanes(run.id))
    mine = replace(lanes[0], lease_token=token, lease_until=NOW + LEASE)
    count = 0
    while not stop.is_set():
        try:
            for _, one in await store.lane_events(mine, 5):
                written = settlement(mine, one)
                assert await store.settle(written)
                mine = written.lane
                count += 1
        except StoreError:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0)
    return count


@pytest.mark.timeout(180)
@RESTARTS
async def test_what_was_acknowledged_is_there_and_what_was_refused_is_not(
    server: Postgres, own_url: str, how: int
):
    """Two nodes with 8 runs each, cut off again and again in the middle of their writes."""
    stores = [await PostgresStore.open(own_url) for _ in range(2)]
    made: list[tuple[PostgresStore, Run, str]] = []
    for n, store in enumerate(stores):
        for _ in range(8):
            made.append((store, await running(store, ALL, worker=f"w{n}"), f"w{n}"))
            run = await append(store, made[-1][1], STEP, token=f"w{n}")
            made[-1] = (store, run, f"w{n}")
        assert len(await store.claim_lanes(8, f"d{n}", NOW, LEASE)) == 8
    stop = asyncio.Event()
    acknowledged: list[list[bytes]] = [[] for _ in made]
    writing = [
        asyncio.create_task(keep_writing(*one, stop, bodies))
        for one, bodies in zip(made, acknowledged, strict=True)
    ]
    settling = [asyncio.create_task(keep_settling(s, run, f"d{t[1]}", stop)) for s, run, t in made]

    async def more(count: int) -> None:
        written = sum(map(len, acknowledged))
        await until(lambda: sum(map(len, acknowledged)) >= written + count, 30)

    for count in (60, 5, 90, 30):
        await more(count)
        await asyncio.to_thread(server.restart, how)
    await more(60)
    stop.set()
    await asyncio.gather(*writing)
    settled = await asyncio.gather(*settling)
    assert sum(settled) > 0
    for (store, run, _), bodies, count in zip(made, acknowledged, settled, strict=True):
        found = await store.events(run.id, after=1, limit=99_999)
        assert [one.body for one in found] == bodies
        attempts = await store.attempts(run.id, limit=99_999)
        assert [attempt.seq for _, attempt in attempts] == list(range(1, count + 1))
        at = await one_lane(store, run)
        assert (at.cursor, at.settled, at.tail) == (count, count, len(bodies) + 1)
    for store in stores:
        await store.close()


# --- a commit that is not answered ----------------------------------------------------------


class AtCommit:
    """A connection on which something else happens where COMMIT is sent."""

    def __init__(self, real: Any, happens: Callable[[Any], Awaitable[None]]) -> None:
        self._real = real
        self._happens = happens

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def execute(self, sql: str, *arguments: Any) -> Any:
        if sql == "COMMIT":
            return await self._happens(self._real)
        return await self._real.execute(sql, *arguments)


def at_commit(store: PostgresStore, happens: Callable[[Any], Awaitable[None]]) -> list[str]:
    """Once, of the next transaction; what happened."""
    commit = store.database.commit
    seen: list[str] = []

    async def watched(real: Any, work: Any) -> Any:
        if seen:
            return await commit(real, work)
        seen.append("seen")
        return await commit(AtCommit(real, happens), work)

    store.database.commit = watched  # type: ignore[method-assign, assignment]
    return seen


async def terminate(url: str, pid: int) -> None:
    other = await asyncpg.connect(url)
    assert await other.fetchval("SELECT pg_terminate_backend($1, 30000)", pid)
    await other.close()


async def next_append(store: PostgresStore, run: Run) -> bool:
    return await store.append(replace(run, seq=run.seq + 1), [event(run, run.seq + 1)], WORKER)


async def test_the_answer_to_a_commit_gets_lost(store: PostgresStore, database_url: str):
    run = await append(store, await running(store, ALL), STEP)

    async def happens(real: Any) -> None:
        await real.execute("COMMIT")
        real.terminate()
        raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")

    seen = at_commit(store, happens)
    assert await next_append(store, run) is True
    assert seen
    assert [one.seq for one in await store.events(run.id)] == [1, 2]


async def test_the_connection_is_ended_before_its_commit(store: PostgresStore, database_url: str):
    run = await append(store, await running(store, ALL), STEP)

    async def happens(real: Any) -> None:
        await terminate(database_url, real.get_server_pid())
        await real.execute("COMMIT")

    seen = at_commit(store, happens)
    with pytest.raises(StoreError, match="Nothing was written"):
        await next_append(store, run)
    assert seen
    assert [one.seq for one in await store.events(run.id)] == [1]
    assert await next_append(store, run) is True


async def test_a_commit_that_nobody_hears_of_is_not_made_later(store: PostgresStore, database_url: str):
    """Its server process goes on after its client has gone: it is ended, and then what became of it is sure."""
    run = await append(store, await running(store, ALL), STEP)
    left: list[Any] = []

    async def happens(real: Any) -> None:
        left.append(real)  # neither committed nor ended
        raise TimeoutError

    real_drop = connection._drop
    seen = at_commit(store, happens)
    connection._drop = lambda one: None  # type: ignore[assignment] # as a client that vanished
    try:
        with pytest.raises(StoreError, match="Nothing was written"):
            await next_append(store, run)
    finally:
        connection._drop = real_drop
    assert seen
    (one,) = left
    await until(one.is_closed)
    assert [one.seq for one in await store.events(run.id)] == [1]


@contextlib.contextmanager
def without_standby(server: Postgres) -> Iterator[None]:
    """A commit waits for a standby that there is none of: it is made, and not answered."""
    psql = [str(server._bin / "psql"), server.url(), "-qc"]
    alter = "ALTER SYSTEM SET synchronous_standby_names = '{}'"
    subprocess.run([*psql, alter.format("nobody")], check=True, capture_output=True)
    subprocess.run([*psql, "SELECT pg_reload_conf()"], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run([*psql, alter.format("")], check=True, capture_output=True)
        subprocess.run([*psql, "SELECT pg_reload_conf()"], check=True, capture_output=True)


async def test_a_connection_is_ended_in_the_middle_of_its_commit(server: Postgres, own_url: str):
    store = await PostgresStore.open(own_url)
    run = await append(store, await running(store, ALL), STEP)
    with without_standby(server):
        writing = asyncio.ensure_future(next_append(store, run))
        other = await asyncpg.connect(own_url)
        # A worker of autovacuum waits for a standby too.
        waits = (
            "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND application_name = 'crewcast'"
        )
        while not (found := await other.fetch(waits)):
            if writing.done():  # a server that was told to read its settings reads them a moment later
                assert await writing is True
                run = replace(run, seq=run.seq + 1)
                writing = asyncio.ensure_future(next_append(store, run))
            await asyncio.sleep(0.01)
        assert not writing.done()
        await other.close()
        await terminate(own_url, found[0][0])
        assert await asyncio.wait_for(writing, 30) is True
    assert [one.seq for one in await store.events(run.id)] == list(range(1, run.seq + 2))
    await store.close()


async def test_after_a_crash_another_s_number_is_not_taken_for_one_s_own(server: Postgres, own_url: str):
    """PostgreSQL gives the numbers of what was lost in a crash again: somebody else commits under ours."""
    store = await PostgresStore.open(own_url)
    run = await append(store, await running(store, ALL), STEP)
    taken = 0
    for _ in range(5):
        numbers: list[str] = []

        async def happens(real: Any, numbers: list[str] = numbers) -> None:
            numbers.append(await real.fetchval("SELECT pg_current_xact_id()::text"))
            await asyncio.to_thread(server.restart, signal.SIGQUIT)
            other = await asyncpg.connect(own_url)
            await other.execute(
                "BEGIN; CREATE TABLE IF NOT EXISTS theirs (x integer); INSERT INTO theirs VALUES (1)"
            )
            numbers.append(await other.fetchval("SELECT pg_current_xact_id()::text"))
            await other.execute("COMMIT")
            await other.close()
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")

        commit = store.database.commit
        at_commit(store, happens)
        with pytest.raises(StoreError, match="Nothing was written"):
            await next_append(store, run)
        store.database.commit = commit  # type: ignore[method-assign]
        assert [one.seq for one in await back(lambda: store.events(run.id))] == [1]
        taken += numbers[0] == numbers[1]
    assert taken > 0
    assert await back(lambda: next_append(store, run))
    await store.close()


# --- a backup -------------------------------------------------------------------------------


async def test_a_dump_that_is_restored_has_everything_and_work_goes_on(
    server: Postgres, own_url: str, tmp_path: Path
):
    world = await fill(tmp_path / "data")
    await move(tmp_path / "data", own_url, lambda *_: None)
    dump, copy = tmp_path / "copy.dump", own_url + "_copy"
    tools = [str(server._bin / name) for name in ("pg_dump", "pg_restore")]
    node = await PostgresStore.open(own_url)  # also while nodes are at work
    done = subprocess.run([tools[0], "--format", "custom", own_url], capture_output=True, check=True)
    dump.write_bytes(done.stdout)
    admin = await asyncpg.connect(server.url())
    await admin.execute(f"CREATE DATABASE {copy.rpartition('/')[2]}")
    restored = subprocess.run([tools[1], "-d", copy, str(dump)], capture_output=True, text=True)
    assert (restored.returncode, restored.stderr) == (0, "")
    store = await PostgresStore.open(copy)
    before, after = await told(node, world), await told(store, world)
    assert after == before
    last = max([number for run_id in world for number, _ in await node.attempts(run_id)])
    mine = next(
        one
        for one in await store.claim_lanes(99, DISPATCHER, NOW + 9 * DAY, LEASE)
        if one.run_id == world.at_work
    )
    assert await store.settle(settlement(mine, event((await store.running_runs())[0], 2)))
    assert (await store.attempts(world.at_work))[-1][0] == last + 1
    for one in await store.lapsed_runs(await store.time(), 9):
        assert await store.adopt(one, WORKER, NOW + LEASE)
        assert await store.append(replace(one, seq=one.seq + 1), [event(one, one.seq + 1)], WORKER)
    await node.close()
    await store.close()
    await admin.execute(f"DROP DATABASE {copy.rpartition('/')[2]} WITH (FORCE)")
    await admin.close()


# --- many nodes -----------------------------------------------------------------------------


@pytest.fixture
def other(
    database_url: str, store: PostgresStore, runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> Iterator[PostgresStore]:
    """A second node, once both hear each other and know that they are two."""
    monkeypatch.setattr(hints, "COUNT_EVERY", 0.02)

    async def opened() -> PostgresStore:
        made = await PostgresStore.open(database_url)
        await acquainted(store, made)
        await acquainted(made, store)
        # The answer that is on its way may be from before: who takes itself to be alone sends nothing until the next.
        before = [node.hints.counts for node in (store, made)]
        await until(lambda: store.hints.counts > before[0] + 1 and made.hints.counts > before[1] + 1)
        return made

    made = runner.run(opened())
    yield made
    runner.run(made.close())


async def acquainted(one: PostgresStore, other: PostgresStore) -> None:
    """Until `other` hears what `one` tells; nothing of this is on its way any more."""
    heard = Heard(other)
    for n in range(150):
        last = (Hint.EVENTS, f"word {n}")
        one.hints.tell([last])
        for _ in range(40):
            if last in heard.hints:  # and with it those before it: they come in their order
                heard.forget()
                return
            await asyncio.sleep(0.005)
    raise AssertionError("one is not heard by the other")


async def test_hints_travel_from_node_to_node(store: PostgresStore, other: PostgresStore):
    here, there = Heard(store), Heard(other)
    run = await queued(store, ALL)
    (run,) = await store.claim_runs(["crew"], 1, WORKER, NOW, LEASE)
    await append(store, run, STEP)
    await other.request_stop(run.id, "kim")
    expected = {(Hint.QUEUED, run.id), (Hint.EVENTS, run.id), (Hint.STOP, run.id)}
    await until(lambda: set(here.hints) >= expected and set(there.hints) >= expected)
    # Nobody hears twice what it has said itself.
    assert here.hints.count((Hint.QUEUED, run.id)) == 1
    assert there.hints.count((Hint.STOP, run.id)) == 1


async def test_more_hints_than_one_message_holds_all_arrive(store: PostgresStore, other: PostgresStore):
    there = Heard(other)
    told = [(Hint.EVENTS, new_run().id) for _ in range(1500)]  # 8000 bytes hold some 150 of them
    odd = (Hint.ORIGIN, "https://\u00fc.example/" + "\u00fc" * 900)
    store.hints.tell([*told, odd])
    await until(lambda: len(there.hints) >= 1501)
    assert there.hints == [*told, odd]


async def test_a_hint_that_is_too_long_does_not_hold_up_the_others(
    store: PostgresStore, other: PostgresStore
):
    there = Heard(other)
    store.hints.tell([(Hint.ORIGIN, "x" * 9000), (Hint.EVENTS, "after")])
    await until(lambda: (Hint.EVENTS, "after") in there.hints)
    assert there.hints == [(Hint.EVENTS, "after")]


async def test_what_one_remembers_does_not_hide_what_the_other_wrote(
    store: PostgresStore, other: PostgresStore
):
    run = await append(store, await running(store, ALL), STEP, STEP, STEP)
    assert await other.adopt(run, "worker-2", NOW + LEASE)
    await append(other, run, STEP, STEP, token="worker-2")
    (mine,) = await store.claim_lanes(9, DISPATCHER, NOW, LEASE)
    assert mine.tail == 5
    assert await sent(store, mine) == [(n, n) for n in range(1, 6)]
    # One that lost the run writes nothing, and remembers nothing that it did not write.
    assert await store.append(replace(run, seq=4), [event(run, 4)], WORKER) is False
    assert [one.body for one in await store.events(run.id)] == [event(run, n).body for n in range(1, 6)]
    assert await sent(store, mine) == [(n, n) for n in range(1, 6)]


async def test_a_run_is_claimed_by_one_of_many(store: PostgresStore, other: PostgresStore):
    made = [(await queued(store)).id for _ in range(60)]
    claimed: list[str] = []

    async def claim(node: PostgresStore, worker: int) -> None:
        while len(claimed) < len(made):
            found = await node.claim_runs(["crew"], 3, f"w{worker}", NOW, LEASE)
            claimed.extend(run.id for run in found)

    await asyncio.wait_for(asyncio.gather(*(claim((store, other)[n % 2], n) for n in range(16))), 60)
    assert sorted(claimed) == sorted(made)


async def test_a_lane_is_claimed_by_one_of_many(store: PostgresStore, other: PostgresStore):
    made = []
    for n in range(20):
        run = await append(store, await running(store, ALL, ALL, ALL, url=f"https://{n % 3}.example/x"), STEP)
        made += [(run.id, number) for number in (1, 2, 3)]
    claimed: list[tuple[str, int]] = []

    async def claim(node: PostgresStore, dispatcher: int) -> None:
        while len(claimed) < len(made):
            busy = ["https://none.example"] if dispatcher % 3 == 0 else []
            per_origin = 2 if dispatcher % 3 == 1 else None
            found = await node.claim_lanes(4, f"d{dispatcher}", NOW, LEASE, busy, per_origin)
            claimed.extend((one.run_id, one.number) for one in found)

    await asyncio.wait_for(asyncio.gather(*(claim((store, other)[n % 2], n) for n in range(16))), 60)
    assert sorted(claimed) == sorted(made)


async def test_transactions_in_each_other_s_way_are_done_again(store: PostgresStore, other: PostgresStore):
    """Two that lock two runs in opposite orders: PostgreSQL ends one of them."""
    first, second = (await queued(store)).id, (await queued(store)).id
    begun = 0
    both = asyncio.Event()

    async def lock(node: PostgresStore, *order: str) -> int:
        tries = 0

        async def work(db: Any) -> int:
            nonlocal begun, tries
            tries += 1
            await db.first("key_of_run", {"id": order[0]})
            begun += 1
            if begun >= 2:
                both.set()
            await both.wait()
            await db.first("key_of_run", {"id": order[1]})
            return tries

        return await node.database.transaction(work)

    tries = await asyncio.gather(lock(store, first, second), lock(other, second, first))
    assert max(tries) > 1


async def test_who_stops_in_a_transaction_loses_its_locks(database_url: str):
    stopped, node = [await PostgresStore.open(database_url) for _ in range(2)]
    run = await queued(node)
    holds, wakes = asyncio.Event(), asyncio.Event()

    async def work(db: Any) -> None:
        await db.write("hide_run", {"key": (await db.first("key_of_run", {"id": run.id}))[0]})
        # Less than any lease by default, so that no lapsed holder holds up those who take over.
        name = "idle_in_transaction_session_timeout"
        patience = await db.connection.fetchval("SELECT setting::int FROM pg_settings WHERE name = $1", name)
        assert 0 < patience < 15_000
        await db.connection.execute(f"SET {name} = 300")  # from here on, when it has all its locks
        holds.set()
        await wakes.wait()  # as a process under SIGSTOP

    stalled = asyncio.create_task(stopped.database.transaction(work))
    await holds.wait()
    assert (await node.request_stop(run.id, "kim")) is not None  # it waits for the lock, and gets it
    wakes.set()
    with pytest.raises(StoreError, match="Nothing was written"):
        await stalled
    assert await node.run(run.id) is not None
    await stopped.close()
    await node.close()


# --- lanes that are read together -----------------------------------------------------------


async def test_what_is_asked_for_while_both_readers_end_is_read(store: PostgresStore):
    """Who hears what they have read may ask for more before anything else knows that they have ended."""
    run = await append(store, await running(store, ALL, ALL), STEP, STEP)
    one, other = await store.claim_lanes(9, DISPATCHER, NOW, LEASE)
    reader, read, answers = store._lane_reader, store.database.read, asyncio.Event()
    waiting: list[Any] = []

    async def together(work: Callable[[Any], Awaitable[Any]]) -> Any:
        found = await read(work)
        waiting.append(work)
        await answers.wait()
        return found

    store.database.read = together  # type: ignore[method-assign, assignment]

    async def twice() -> list[Event]:
        first = await reader.read(one, 1)
        return first + await reader.read(replace(one, cursor=1), 1)

    more = asyncio.create_task(twice())
    await until(lambda: len(waiting) == 1)
    beside = reader.read(other, 1)
    await until(lambda: len(waiting) == 2)
    answers.set()
    assert await asyncio.wait_for(more, 30) == [event(run, 1), event(run, 2)]
    assert await beside == [event(run, 1)]


# --- queries --------------------------------------------------------------------------------


async def test_every_query_fits_the_schema(store: PostgresStore):
    real = await store.database.connect()
    for name, query in load_queries().items():
        try:
            prepared = await real.prepare(query.sql)
        except asyncpg.PostgresError as e:
            raise AssertionError(f"{name}: {e}") from e
        if query.names:
            assert len(prepared.get_parameters()) == len(query.names), name
    await real.close()


# These hold nothing but what waits, or is asked for as a whole.
PARTIAL = {
    "run_queued",
    "run_running",
    "run_at_work",
    "run_stop",
    "run_ended",
    "run_hidden",
    "lane_due",
    "lane_origin",
    "lane_leased",
    "review_open",
    "review_due",
    "dead_letter_undelivered",
}
LARGE = (
    "run",
    "kickoff",
    "lane",
    "event",
    "attempt",
    "dead_letter",
    "journal",
    "review",
    "subscription",
    "idempotency",
)


MANY = f"""
INSERT INTO run (key, id, crew, state, created_at, finished_at, attempt, seq, completed_tasks, token)
    SELECT {NOW // DAY}::bigint << 40 | n, 'run-' || n, 'crew-' || n % 7, 'completed', n, n, 1, 3, 0, 'token-' || n % 50
    FROM generate_series(10001, 14000) AS n;
INSERT INTO kickoff (run, inputs, token) SELECT key, '', token FROM run WHERE key & 16777215 > 10000;
INSERT INTO event (run, seq, channel, type, at, run_attempt, body)
    SELECT key, n, 2, 'step', 0, 1, '' FROM run, generate_series(1, 3) AS n WHERE key & 16777215 > 10000;
INSERT INTO lane (run, number, url, origin, channels, cursor, tail, settled, tries, due_at, closed)
    SELECT key, n, 'u', 'o-' || key % 50, 31, 0, 3, 0, 0, 5 + key % 99, NULL
    FROM run, generate_series(1, 2) AS n WHERE key & 16777215 > 10000 AND key % 9 = 0
    UNION ALL SELECT key, n, 'u', 'o-' || key % 50, 31, 3, 3, 3, 0, NULL, CASE WHEN key % 5 = 0 THEN 'gone' END
    FROM run, generate_series(1, 2) AS n WHERE key & 16777215 > 10000 AND key % 9 > 0;
INSERT INTO attempt (run, lane, seq, number, at, verdict, kind, duration)
    SELECT run, number, 1, 1, 0, 'accepted', 'ok', 0 FROM lane WHERE run & 16777215 > 10000;
INSERT INTO dead_letter (run, lane, seq, at, reason, origin, lane_seq, redelivered)
    SELECT run, number, 2, 0, 'x', origin, 2, CASE WHEN run % 2 = 0 THEN 1 END FROM lane WHERE run & 16777215 > 10000;
INSERT INTO journal (run, name, value) SELECT run, 'n-' || number, '' FROM lane WHERE run & 16777215 > 10000;
INSERT INTO subscription (run, lane, first, last, channels) SELECT run, number, 1, 9, 2 FROM lane WHERE run & 16777215 > 10000;
INSERT INTO review (run, number, task_id, place, uuid, agent, output, asked_at, reminders, state, feedback, pass_feedback,
                    decided_at, decision)
    SELECT run, number, '', 1, '', '', '', 0, 0, 'decided', '', 1, 0, 'approve' FROM lane WHERE run & 16777215 > 10000;
INSERT INTO idempotency (token, key, fingerprint, run_id, at) SELECT token, id, '', id, created_at FROM run;
"""


async def fill_tables(store: PostgresStore) -> None:
    """Thousands of rows in each, most of them of work that is done: plans are not made for empty tables."""
    for n in range(9):
        run = await append(store, await running(store, ALL, url=f"https://{n}.example/hook"), STEP)
        await store.claim_lanes(9, DISPATCHER, NOW, LEASE)
        await ended(store, run)
    for _ in range(9):
        await running(store, ALL)
    real = await store.database.connect()
    await real.execute(MANY)
    await real.execute("ANALYZE")
    await real.close()


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


async def test_no_query_looks_at_every_row_of_a_large_table(store: PostgresStore):
    await fill_tables(store)
    real = await store.database.connect()  # with the settings that every query has
    looked_at = set()
    found: dict[str, list[str]] = {}
    for name, query in load_queries().items():
        prepared = await real.prepare(query.sql)
        arguments = ", ".join(["NULL"] * len(prepared.get_parameters()))
        types = ", ".join(
            f"{one.schema}.{one.name}".removeprefix("pg_catalog.") for one in prepared.get_parameters()
        )
        await real.execute(f"PREPARE explained{f' ({types})' if types else ''} AS {query.sql}")
        call = f"explained({arguments})" if arguments else "explained"
        try:
            (explained,) = json.loads(await real.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE {call}"))
        finally:
            await real.execute("DEALLOCATE explained")
        for node in nodes(explained["Plan"]):
            table = node.get("Relation Name", "").rpartition("_")
            table_name = table[0] if table[2].isdigit() else node.get("Relation Name")
            if table_name not in LARGE:
                continue
            looked_at.add(name)
            kind, index = node["Node Type"], node.get("Index Name", "")
            if kind == "Seq Scan":
                found.setdefault(name, []).append(f"{kind} on {table_name}")
            elif (
                kind in ("Index Scan", "Index Only Scan")
                and index not in PARTIAL
                and "Index Cond" not in node
            ):
                found.setdefault(name, []).append(f"all of {index}")
    await real.close()
    assert found == {}
    assert len(looked_at) > 60


# --- days -----------------------------------------------------------------------------------


async def partitions(url: str) -> set[str]:
    real = await asyncpg.connect(url, server_settings={"search_path": "crewcast"})
    rows = await real.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'crewcast'::regnamespace AND relkind = 'r' "
        "AND relname ~ '_[0-9]+$'"
    )
    await real.close()
    return {name for (name,) in rows}


def of_days(*days: int) -> set[str]:
    return {f"{table}_{day}" for table in ("event", "attempt") for day in days}


async def done_on(store: PostgresStore, at: int) -> Run:
    """A run of that time with two events, delivered to nobody."""
    made = new_run("days", at)
    await store.create_run(made, [], None, at)
    (run,) = await store.claim_runs(["days"], 1, WORKER, at, LEASE)
    return await ended(store, await append(store, run, STEP, at=at), at)


FIRST = NOW // DAY


async def test_a_day_is_made_with_its_first_run_also_by_two_nodes_at_once(
    store: PostgresStore, other: PostgresStore, database_url: str
):
    assert await partitions(database_url) == set()
    runs = [new_run("crew", NOW + n % 3 * DAY) for n in range(24)]
    await asyncio.gather(
        *((store, other)[n % 2].create_run(run, [], None, NOW) for n, run in enumerate(runs))
    )
    assert await partitions(database_url) == of_days(FIRST, FIRST + 1, FIRST + 2)
    found = await store.claim_runs(["crew"], 99, WORKER, NOW, LEASE)
    assert sorted(run.id for run in found) == sorted(run.id for run in runs)


async def test_a_day_is_dropped_as_a_whole_once_nothing_of_it_is_shown(
    store: PostgresStore, other: PostgresStore, database_url: str
):
    first = [await done_on(store, NOW) for _ in range(3)]
    second = await done_on(store, NOW + DAY)
    assert len(await store.expire(NOW + SECOND, 2)) == 2
    await store.sweep(100)
    assert await partitions(database_url) == of_days(FIRST, FIRST + 1)
    assert len(await store.expire(NOW + SECOND, 9)) == 1
    # Two nodes sweep at once, and one that reads meanwhile is not disturbed.
    await asyncio.gather(store.sweep(100), other.sweep(100), other.events(second.id))
    while await store.sweep(100):
        pass
    assert await partitions(database_url) == of_days(FIRST + 1)
    assert [await store.run(run.id) for run in first] == [None] * 3
    assert [one.seq for one in await other.events(second.id)] == [1, 2]


async def test_a_day_that_few_still_need_is_emptied_row_by_row(store: PostgresStore, database_url: str):
    gone = [await done_on(store, NOW) for _ in range(3)]
    kept = await append(store, await running(store, ALL), STEP)  # of the same day, and still at work
    await store.expire(NOW + 5 * DAY, 9)
    removed = 0
    while count := await store.sweep(4):
        assert count <= 4
        removed += count
    assert removed == 3 * 4  # of each two events, its kickoff and its own row
    assert await partitions(database_url) == of_days(FIRST)
    assert [await store.run(run.id) for run in gone] == [None] * 3
    assert [one.seq for one in await store.events(kept.id)] == [1]
    real = await asyncpg.connect(database_url, server_settings={"search_path": "crewcast"})
    assert await real.fetchval("SELECT count(*) FROM event") == 1
    await real.close()


async def test_a_day_that_is_gone_is_made_again_for_a_clock_that_was_behind(
    store: PostgresStore, database_url: str
):
    await done_on(store, NOW)
    await store.expire(NOW + SECOND, 9)
    while await store.sweep(100):
        pass
    assert await partitions(database_url) == set()
    run = await done_on(store, NOW)
    assert [one.seq for one in await store.events(run.id)] == [1, 2]


async def test_an_event_never_changes(store: PostgresStore, database_url: str):
    await done_on(store, NOW)
    real = await asyncpg.connect(database_url, server_settings={"search_path": "crewcast"})
    with pytest.raises(asyncpg.RaiseError, match="is append-only"):
        await real.execute("UPDATE event SET body = ''")
    await real.close()


async def test_a_closed_store_says_so(database_url: str):
    store = await PostgresStore.open(database_url)
    run = await running(store, ALL)
    await store.close()
    for verb in (lambda: next_append(store, run), store.time, lambda: store.delete_run(run.id)):
        with pytest.raises(StoreUnusable, match="the store is closed"):
            await verb()


async def test_what_is_queued_is_written_before_it_closes(database_url: str):
    store = await PostgresStore.open(database_url)
    run = await running(store, ALL)
    writing = next_append(store, run)
    task = asyncio.ensure_future(writing)
    await asyncio.sleep(0)
    await store.close()
    assert await task is True
    database = await Database.open(database_url)
    ((count,),) = await database.read(lambda db: db.connection.fetch("SELECT count(*) FROM event"))
    await database.close()
    assert count == 1
