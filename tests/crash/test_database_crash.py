"""PostgreSQL crashes, restarts and drops sessions under a store that writes: each write is there once or not at all.

Who got an error writes the same again, so an error for what was committed shows, and so does an answer for what was
not. A few seconds here; `make soak` sets CREWCAST_SOAK_SECONDS for the long form.
"""

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import asyncpg
import pytest
from msgspec.structs import replace

from crewcast.core import ids
from crewcast.core import run as runs
from crewcast.core.errors import StoreError
from crewcast.core.event import Channel, Event
from crewcast.core.lane import Attempt, Lane, Verdict
from crewcast.core.outcome import Outcome
from crewcast.core.run import Run
from crewcast.store.postgres import PostgresStore
from crewcast.store.protocol import Settlement
from tests.support.postgres import Postgres, running

SECONDS = float(os.environ.get("CREWCAST_SOAK_SECONDS", "6"))
RUNS = 16
LEASE = 3_600_000_000
DROP = """SELECT count(pg_terminate_backend(pid)) FROM
    (SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'crewcast%' ORDER BY random() LIMIT 4) AS found"""


class Writers:
    """`RUNS` of them, each at a run of its own with one lane, until `over`."""

    def __init__(self, store: PostgresStore) -> None:
        self.store = store
        self.over = asyncio.Event()
        self.errors = 0
        self.ended: list[tuple[Run, Lane]] = []

    async def insist(self, write: Callable[[], Awaitable[bool]]) -> None:
        while True:
            try:
                assert await write(), "refused: an error was told for what was written"
            except StoreError:
                self.errors += 1
                await asyncio.sleep(0.01)
            else:
                return

    async def work(self, run: Run, lane: Lane) -> None:
        while not self.over.is_set():
            after = replace(run, seq=run.seq + random.randint(1, 3))
            events = [event(run.id, seq) for seq in range(run.seq + 1, after.seq + 1)]
            await self.insist(lambda: self.store.append(after, events, "worker"))  # noqa: B023 - awaited here
            run = after
            while lane.cursor < run.seq:
                seq = lane.cursor + 1
                lane = replace(lane, cursor=seq, settled=seq, due_at=seq)
                made = Attempt(run.id, 1, seq, 1, seq, Outcome("ok", 200), Verdict.ACCEPTED)
                await self.insist(lambda: self.store.settle(Settlement(lane, made)))  # noqa: B023
        self.ended.append((run, lane))


def event(run_id: str, seq: int) -> Event:
    return Event(run_id, seq, Channel.STEP, "step", b"%d" % seq + b"x" * (seq % 3000), seq)


async def started(store: PostgresStore) -> list[tuple[Run, Lane]]:
    """Runs with their lanes, all held."""
    for _ in range(RUNS):
        run = runs.new_run(ids.run_id(1, os.urandom(10)), "crew", b"{}", 1)
        lane = Lane(run.id, 1, "https://s.example/", "https://s.example:443", Channel.STEP)
        await store.create_run(run, [lane], None, 1)
    claimed = {run.id: run for run in await store.claim_runs(["crew"], RUNS, "worker", 1, LEASE)}
    for run in claimed.values():
        after = replace(run, seq=1)
        assert await store.append(after, [event(run.id, 1)], "worker")
        claimed[run.id] = after
    lanes = await store.claim_lanes(RUNS, "dispatcher", 1, LEASE)
    return [(claimed[lane.run_id], lane) for lane in lanes]


async def trouble(postgres: Postgres, until: float) -> Counter[str]:
    """Sessions are dropped all the time, and the server ends now and then."""
    done: Counter[str] = Counter()
    while time.monotonic() < until or len(done) < 3:
        for _ in range(random.randint(3, 20)):
            connection = await asyncpg.connect(postgres.url())
            done["dropped sessions"] += await connection.fetchval(DROP)
            await connection.close()
            await asyncio.sleep(random.uniform(0.01, 0.1))
        how = random.choice([signal.SIGQUIT, signal.SIGINT])
        await asyncio.to_thread(postgres.restart, how)
        done["crashes" if how == signal.SIGQUIT else "restarts"] += 1
    return done


@pytest.mark.timeout(120 + 2 * SECONDS)
def test_a_write_is_there_once_if_it_was_answered_and_not_at_all_if_it_failed():
    async def story(postgres: Postgres) -> None:
        store = await PostgresStore.open(postgres.url())
        writers = Writers(store)
        async with asyncio.TaskGroup() as group:
            for run, lane in await started(store):
                group.create_task(writers.work(run, lane))
            done = await trouble(postgres, min(over, time.monotonic() + 60))
            writers.over.set()
        assert len(writers.ended) == RUNS
        for run, lane in writers.ended:
            found: list[Event] = []
            while page := await store.events(run.id, len(found), 1000):
                found += page
            assert found == [event(run.id, seq) for seq in range(1, run.seq + 1)]
            [kept] = await store.lanes(run.id)
            assert kept.cursor == lane.cursor == run.seq
            attempts = await store.attempts(run.id, limit=1_000_000)
            assert Counter(made.seq for _, made in attempts) == Counter(range(1, run.seq + 1))
        assert writers.errors > 0
        print(f"{dict(done)}: {sum(run.seq for run, _ in writers.ended)} events, {writers.errors} errors")
        await store.close()

    over = time.monotonic() + SECONDS
    while time.monotonic() < over:
        with running() as postgres:  # a new one each time, since all of it is read in the end
            asyncio.run(story(postgres))
