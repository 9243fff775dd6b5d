"""What a verb costs does not depend on how much waits beside it: plans, and counted steps of the engine."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from crewcast.core import review as reviews
from crewcast.core import run as runs
from crewcast.core.event import Channel, Event
from crewcast.core.lane import Lane
from crewcast.core.run import Run, RunState
from crewcast.store.sqlite import SQLiteStore
from crewcast.store.sqlite.reader import THREADS
from crewcast.store.sqlite.session import load_queries
from tests.contract.store.world import (
    ALL,
    APPROVE,
    BUSY,
    DAY,
    DISPATCHER,
    LEASE,
    NOW,
    SECOND,
    WORKER,
    append,
    decided,
    delivered,
    event,
    goes_on,
    lane,
    new_run,
    one_lane,
    question,
    settlement,
    waiting,
)

# For people who ask, and for a node that starts: as much work as there is to tell.
TELLS_ALL = {
    "origins",
    "health",
    "secrets",
    "forget_secrets",
    "expire_secrets",
    "newest_secret",
    "rotations",
    "master_key",
    "nodes",
    "forget_nodes",
    "published_crews",
    "forget_crews",
}
# From one to the next in an index that holds nothing else: its first entry is all that is read, or each entry
# is a result.
HEADS = {
    "queues",
    "stops",
    "running_runs",
    "lapsed_runs",
    "hidden_run",
    "void_leases",
    "renew_lanes",
}
OURS = r"SCAN (?!CONSTANT ROW|json_each|\(subquery|v$|found$|waits$|made$|work$)"


def plan(store: SQLiteStore, sql: str) -> list[str]:
    db = store._writes.connection
    if "$rows" in sql:
        columns = [int(number) for number in re.findall(r"column(\d+)", sql)]
        width = max(columns) if "SELECT *" not in sql else sql[: sql.index(")")].count(",") + 1
        rows = db.execute(
            "EXPLAIN QUERY PLAN " + sql.replace("$rows", f"({', '.join('?' * width)})"), [1] * width
        )
    else:
        rows = db.execute(f"EXPLAIN QUERY PLAN {sql}", dict.fromkeys(re.findall(r":(\w+)", sql), 1))
    return [step for *_, step in rows.fetchall()]


async def test_no_statement_looks_at_every_row_of_a_table(store: SQLiteStore):
    """Nor at every entry of an index, except where that is the answer."""
    for name, sql in load_queries().items():
        scans = [step for step in plan(store, sql) if re.match(OURS, step)]
        if name in HEADS:
            assert all(re.search(r"INDEX (run|lane)_", step) for step in scans), (name, scans)
        elif name not in TELLS_ALL:
            assert scans == [], name


async def test_passing_over_lanes_reads_the_index_alone(store: SQLiteStore):
    queries = load_queries()
    for name in ("due_lanes_elsewhere", "due_lanes_beyond", "due_origins", "next_due", "next_due_elsewhere"):
        steps = [step for step in plan(store, queries[name]) if re.search(r"INDEX lane_", step)]
        assert steps, name
        assert all("COVERING INDEX" in step for step in steps), (name, steps)


# --- counted --------------------------------------------------------------------------------

BUSY_ORIGINS = [f"https://{n}.busy.example" for n in range(4)]


class Steps:
    """How many steps the engine makes, in every connection of a store."""

    def __init__(self, store: SQLiteStore) -> None:
        self.made = 0
        self._store = store

    def _count(self) -> int:
        self.made += 1
        return 0

    async def of(self, what: Callable[[], Awaitable[object]]) -> int:
        connections = [self._store._writes.connection, *self._store._reader._connections]
        for db in connections:
            db.set_progress_handler(self._count, 1)
        self.made = 0
        try:
            await what()
        finally:
            for db in connections:
                db.set_progress_handler(None, 1)
        return self.made


async def crowd(store: SQLiteStore, runs: int) -> None:
    """So many runs, each with 10 lanes that are due at busy origins, with 3 events each."""
    for n in range(runs):
        run = new_run("crowd")
        url = f"{BUSY_ORIGINS[n % 4]}/hook"
        await store.create_run(run, [lane(run, number, ALL, url) for number in range(1, 11)], None, NOW)
        (run,) = await store.claim_runs(["crowd"], 1, WORKER, NOW, LEASE)
        await append(store, run, *[Channel.STEP] * 3)


async def costs(folder: Path, crowded: int) -> dict[str, int]:
    """What each verb of the steady state costs beside so many waiting runs."""
    store = await SQLiteStore.open(folder)
    while len(store._reader._connections) < THREADS:  # one may take all reads before the other has begun
        await asyncio.gather(*(store.run("") for _ in range(9)))
    await crowd(store, crowded)
    await crowd_of_people(store, crowded)
    found: dict[str, int] = {}
    steps = Steps(store)

    async def count(name: str, what: Callable[[], Awaitable[object]]) -> None:
        found[name] = await steps.of(what)

    async def one(url: str) -> tuple[Run, Lane]:
        run = new_run("one")
        await store.create_run(run, [lane(run, 1, ALL, url)], None, NOW)
        (run,) = await store.claim_runs(["one"], 1, WORKER, NOW, LEASE)
        run = await append(store, run, *[Channel.STEP] * 4, at=NOW + SECOND)
        return run, await one_lane(store, run)

    run, mine = await one("https://a.example/hook")
    idle, _ = await one("https://b.example/hook")

    async def claim(*, per_origin: int | None = None, limit: int = 1) -> list[Lane]:
        return await store.claim_lanes(limit, DISPATCHER, NOW + SECOND, LEASE, BUSY_ORIGINS, per_origin)

    await count("next_due", lambda: store.next_due(BUSY_ORIGINS))
    await count("claim_lanes", claim)
    await count("claim_lanes capped", lambda: claim(per_origin=1, limit=9))
    await count("claim_lanes for nothing", claim)
    await count("next_due for nothing", lambda: store.next_due(BUSY_ORIGINS))
    mine = replace(mine, lease_token=DISPATCHER, lease_until=NOW + SECOND + LEASE)
    store._tail.forget(run.id)
    await count("lane_events", lambda: store.lane_events(mine, 64))
    first = settlement(mine, event(run, 1))
    await count("settle", lambda: store.settle(first))
    lost = settlement(first.lane, event(run, 2), BUSY, now=NOW + 10**13)
    assert lost.attempt.verdict == "gave_up"
    await count("settle, given up", lambda: store.settle(lost))
    await count("renew_lanes", lambda: store.renew_lanes(DISPATCHER, NOW + 2 * LEASE))
    await count("pending_beside", lambda: store.pending_beside(mine))
    more = replace(run, seq=run.seq + 1)
    await count("append", lambda: store.append(more, [event(run, more.seq)], WORKER))
    await count("park_lanes", lambda: store.park_lanes([lost.lane], NOW + 9 * SECOND))
    await count("redeliver", lambda: store.redeliver(run.id, now=NOW, dead_only=True))
    await count("undelivered", lambda: store.undelivered("https://a.example"))
    await count("expire", lambda: store.expire(NOW + 10**13, 9))
    await count("reset_origin", lambda: store.reset_origin("https://a.example", NOW))
    stopped = replace(idle, state="waiting", seq=idle.seq + 1)  # type: ignore[arg-type]
    assert await store.append(stopped, [Event(idle.id, stopped.seq, ALL, "x", b"", NOW)], WORKER)
    await count("delete_run", lambda: store.delete_run(idle.id))
    await count_reviews(store, count)
    await count("sweep", lambda: store.sweep(3))
    await store.close()
    return found


async def crowd_of_people(store: SQLiteStore, runs: int) -> None:
    """So many runs that wait for a person, have ended after one was asked, and are queued: 4 crews, 4 tokens,
    none of which is served or may have more at work.
    """
    for n in range(runs):
        await waiting(store, expires_at=NOW + DAY, remind_every=DAY)
        await goes_on(store, await decided(store, *(await waiting(store, expires_at=NOW + DAY))))
        for crew, token in (("served", f"full-{n % 4}"), (f"crew-{n % 4}", "free")):
            await store.create_run(replace(new_run(crew), token=token), [], None, NOW)


async def count_reviews(store: SQLiteStore, count: Callable) -> None:
    """Of a run that asks, is decided and goes on, beside the crowd."""
    for n in range(4):
        await store.create_run(replace(new_run("first"), token=f"full-{n}"), [], None, NOW)
        assert await store.claim_runs(["first"], 1, WORKER, NOW, LEASE)
    first = replace(new_run("one"), token="free")
    await store.create_run(first, [lane(first)], None, NOW)

    async def claim(*crews: str, limit: int = 9) -> list[Run]:
        return await store.claim_runs(crews, limit, WORKER, NOW, LEASE, per_crew={"crew-0": 0}, per_token=1)

    await count("claim_runs", lambda: claim("one", "served", "crew-0"))
    await count("claim_runs for nothing", lambda: claim("one", "served", "crew-0"))
    run = await store.run(first.id)
    assert run is not None
    asked = question(run, expires_at=NOW + SECOND, remind_every=SECOND // 2)
    wait = replace(runs.pause(run, NOW), seq=1)
    told = [event(run, 1)]
    await count("pause", lambda: store.append(wait, told, WORKER, {"pending": b"x"}, asked))
    await count("next_review_due", store.next_review_due)
    await count("due_reviews", lambda: store.due_reviews(NOW + SECOND, 9))
    await count("review", lambda: store.review(run.id))
    await count("reviews", lambda: store.reviews(limit=9))
    await count("journal", lambda: store.journal(run.id))
    reminded = reviews.remind(asked, NOW + SECOND // 2)
    await count("remind", lambda: store.remind(reminded, wait, replace(wait, seq=2), [event(run, 2)]))
    wait = replace(wait, seq=2)
    done = reviews.decide(reminded, APPROVE, NOW)
    urls = [lane(run, 1, ALL, "https://c.example/hook")]
    after = replace(runs.resume(wait), seq=3)
    await count("decide", lambda: store.decide(done, wait, after, [event(run, 3)], urls))
    (mine,) = [one for one in await store.lanes(run.id) if one.ranged and one.channels]
    await count("lane_events of a new subscription", lambda: store.lane_events(mine, 64))
    (run,) = await store.claim_runs(["one"], 9, WORKER, NOW, LEASE)
    await count("request_stop", lambda: store.request_stop(run.id, "kim"))
    await count("stops", lambda: store.stops(WORKER))
    queued_run = new_run("one")
    await store.create_run(queued_run, [lane(queued_run)], None, NOW)
    stopped = runs.end(queued_run, RunState.CANCELLED, NOW)
    await count("conclude", lambda: store.conclude(queued_run, stopped, []))


@pytest.mark.timeout(240)
async def test_what_waits_costs_nothing_to_what_is_sent(tmp_path: Path):
    """1000 and 4000 lanes that are due and must be left alone: both more than a claim looks at."""
    few, many = await costs(tmp_path / "few", 100), await costs(tmp_path / "many", 400)
    grown = {name: (few[name], many[name]) for name in few if many[name] > 1.1 * few[name] + 20}
    assert grown == {}
    assert all(few.values())


async def test_split_lanes_cost_an_append_nothing(store: SQLiteStore):
    """Nor do replays: a run whose subscriber is away may have thousands."""

    async def cost(replays: int) -> int:
        run = new_run("split")
        await store.create_run(run, [lane(run)], None, NOW)
        (run,) = await store.claim_runs(["split"], 1, WORKER, NOW, LEASE)
        run = await append(store, run, Channel.STEP)
        for _ in range(replays):
            await store.redeliver(run.id, now=NOW)
        after = replace(run, seq=2)
        return await Steps(store).of(lambda: store.append(after, [event(run, 2)], WORKER))

    assert await cost(300) <= 1.1 * await cost(3)
    assert await delivered(store, (await store.claim_lanes(1, DISPATCHER, NOW, LEASE))[0], 1)
