"""Many nodes over PostgreSQL: what it costs against a bare loop, what more dispatchers bring, how soon others know."""

import asyncio
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager

import asyncpg
import uvloop

from benchmarks.delivery import (
    EVENTS_PER_APPEND,
    RATE,
    ROUNDS,
    Node,
    Subscriber,
    bare,
    cores,
    deliver,
    emit,
    subscribers,
    waits,
)
from benchmarks.receiver import Receiver
from crewcast.core.backoff import DAY
from crewcast.core.run import Run
from crewcast.store.postgres import PostgresStore
from crewcast.store.postgres.partitions import SHIFT
from tests.support.postgres import Databases
from tests.support.postgres import running as postgres

LANES, EVENTS = 64, 400
BACKLOG_LANES, BACKLOG_EVENTS = 256, 200
DISPATCHERS = (1, 2, 4)
STORED = int(os.environ.get("CREWCAST_BENCH_STORED", "10000000"))
STORED_OF_A_RUN = 100
STORED_FROM = 1 << 30  # their serials, out of the way of new runs
LEASE = 60.0
SHORT_LEASE = 2.0
TAKEOVERS = 5


@asynccontextmanager
async def node_on(database: str, subscriber: Subscriber, *, dispatches: bool) -> AsyncIterator[Node]:
    """Without dispatching, other processes' attempts are counted by a connection of its own."""
    store = await PostgresStore.open(database)
    connection = await asyncpg.connect(database)

    async def made() -> int:
        if dispatches:
            return store.settlements.written
        return int(
            await connection.fetchval("SELECT last_value - 1 + is_called::int FROM crewcast.attempt_id")
        )

    node = Node(store, made, subscriber, dispatches=dispatches)
    try:
        yield node
    finally:
        await node.close()
        await connection.close()
        await store.close()


class Dispatching:
    """A dispatcher in a process of its own."""

    def __init__(self, database: str, lease: float = LEASE) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.dispatching", database, str(lease)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"go\n")
        self.process.stdin.flush()

    def end(self) -> None:
        if self.process.poll() is None and self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait(30)


@contextmanager
def dispatching(database: str, count: int, lease: float = LEASE) -> Iterator[list[Dispatching]]:
    with ExitStack() as stack:
        made = []
        for _ in range(count):
            one = Dispatching(database, lease)
            stack.callback(one.end)
            made.append(one)
        yield made


# --- against the bare loop ------------------------------------------------------------------


async def durable(subscriber: Subscriber, database: str) -> float:
    async with node_on(database, subscriber, dispatches=True) as node:
        return await deliver(node, LANES, EVENTS)


def against_bare() -> None:
    print(
        f"\nPostgreSQL: {LANES} lanes, {EVENTS} events each, one node with all roles, http (wanted: at least 0.5)"
    )
    for count in sorted({1, len(os.sched_getaffinity(0))}):
        with cores(count), postgres(durable=True) as server, subscribers() as (listening, plain, _):
            databases = Databases(server.url())
            ratios = []
            for n in range(ROUNDS):
                without = uvloop.run(bare(plain, LANES, EVENTS))
                kept = uvloop.run(durable(plain, asyncio.run(databases.new())))
                listening.arrivals()
                ratios.append(kept / without)
                print(
                    f"      round {n + 1}: bare {without:8.0f}/s   durable {kept:8.0f}/s   ratio {ratios[-1]:.2f}"
                )
        where = "one core, PostgreSQL and the receiver on it too" if count == 1 else f"{count} cores"
        print(f"    durable / bare on {where}, median of {ROUNDS}: {statistics.median(ratios):.2f}")


# --- several dispatchers --------------------------------------------------------------------


async def backlog(database: str, subscriber: Subscriber) -> int:
    """Events that wait for the first dispatcher; how many."""
    async with node_on(database, subscriber, dispatches=False) as node:
        found = await node.new_runs(BACKLOG_LANES)

        async def fill(run: Run) -> None:
            for _ in range(BACKLOG_EVENTS // EVENTS_PER_APPEND):
                run = await node.append(run, EVENTS_PER_APPEND)

        await asyncio.gather(*map(fill, found))
    return BACKLOG_LANES * BACKLOG_EVENTS


async def emptied(database: str, count: int) -> float:
    """When the last of `count` outcomes was committed."""
    connection = await asyncpg.connect(database)
    asked = "SELECT last_value FROM crewcast.attempt_id"
    while int(await connection.fetchval(asked)) < count:
        await asyncio.sleep(0.005)
    await connection.close()
    return time.perf_counter()


def more_dispatchers() -> None:
    print(
        f"\nDispatcher processes on {len(os.sched_getaffinity(0))} cores: a backlog of {BACKLOG_LANES} lanes"
    )
    rates: dict[int, list[float]] = {count: [] for count in DISPATCHERS}
    with postgres(durable=True) as server, subscribers() as (listening, plain, _):
        databases = Databases(server.url())
        for _ in range(3):
            for count in DISPATCHERS:
                database = asyncio.run(databases.new())
                waiting = uvloop.run(backlog(database, plain))
                with dispatching(database, count) as made:
                    began = time.perf_counter()
                    for one in made:
                        one.go()
                    rates[count].append(waiting / (uvloop.run(emptied(database, waiting)) - began))
                assert len({name for name, _ in listening.arrivals()}) == waiting
    alone = statistics.median(rates[1])
    for count, found in rates.items():
        rate = statistics.median(found)
        print(f"    {count} dispatchers: {rate:8.0f}/s, {rate / alone:.2f} of one")


# --- much that is stored --------------------------------------------------------------------

FILL_RUNS = f"""
INSERT INTO run (key, id, crew, state, created_at, finished_at, attempt, seq, completed_tasks)
SELECT ($1::bigint << $3) | n, 'stored-' || $1::bigint || '-' || n, 'stored', 'completed', $1 * $4, $1 * $4 + 1, 1, $5, 1
FROM generate_series({STORED_FROM} + 1, {STORED_FROM} + $2::int) AS n
"""
FILL_LANES = f"""
INSERT INTO lane (run, number, url, origin, channels, cursor, tail, settled, tries, total)
SELECT ($1::bigint << $3) | n, 1, 'https://stored.example/hook', 'https://stored.example', 31, $4, $4, $4, 0, $4
FROM generate_series({STORED_FROM} + 1, {STORED_FROM} + $2::int) AS n
"""
FILL_EVENTS = f"""
INSERT INTO event (run, seq, channel, type, at, run_attempt, body)
SELECT ($1::bigint << $3) | n, seq, 2, 'step', $4, 1, 'some kind of body of a step, not too long'
FROM generate_series({STORED_FROM} + 1, {STORED_FROM} + $2::int) AS n, generate_series(1, $5::int) AS seq
"""
FILL_ATTEMPTS = f"""
INSERT INTO attempt (run, lane, seq, number, at, verdict, kind, status, duration)
SELECT ($1::bigint << $3) | n, 1, seq, 1, $4, 'accepted', 'ok', 200, 1000
FROM generate_series({STORED_FROM} + 1, {STORED_FROM} + $2::int) AS n, generate_series(1, $5::int) AS seq
"""


async def store_much(database: str, days: Sequence[int]) -> None:
    """Ended runs of the last days, with all their events and attempts."""
    of_a_day = STORED // STORED_OF_A_RUN // len(days)
    connection = await asyncpg.connect(database, server_settings={"search_path": "crewcast"})
    for day in days:
        for table in ("event", "attempt"):
            await connection.execute(
                f"CREATE TABLE IF NOT EXISTS {table}_{day} PARTITION OF {table} "
                f"FOR VALUES FROM ({day << SHIFT}) TO ({(day + 1) << SHIFT})"
            )
        at = day * DAY
        await connection.execute(FILL_RUNS, day, of_a_day, SHIFT, DAY, STORED_OF_A_RUN, timeout=None)
        await connection.execute(FILL_LANES, day, of_a_day, SHIFT, STORED_OF_A_RUN, timeout=None)
        await connection.execute(FILL_EVENTS, day, of_a_day, SHIFT, at, STORED_OF_A_RUN, timeout=None)
        await connection.execute(FILL_ATTEMPTS, day, of_a_day, SHIFT, at, STORED_OF_A_RUN, timeout=None)
    await connection.execute("VACUUM ANALYZE")
    await connection.execute("CHECKPOINT")
    await connection.close()


def much_stored() -> None:
    print(
        f"\nPostgreSQL with {STORED} events and attempts of ended runs, against an empty one (wanted: at most 2)"
    )
    with postgres(durable=True) as server, subscribers() as (listening, plain, _):
        databases = Databases(server.url())
        full = asyncio.run(databases.new())
        today = int(time.time() * 1_000_000) // DAY
        began = time.perf_counter()
        # Half of it today, where new runs come too.
        asyncio.run(store_much(full, (today - 1, today)))
        print(f"      filled in {time.perf_counter() - began:.0f} s")
        costs = []
        for n in range(ROUNDS):
            empty = uvloop.run(durable(plain, asyncio.run(databases.new())))
            beside = uvloop.run(durable(plain, full))
            listening.arrivals()
            costs.append(empty / beside)
            print(
                f"      round {n + 1}: empty {empty:8.0f}/s   beside them {beside:8.0f}/s   cost {costs[-1]:.2f}"
            )
    print(f"    cost of an event beside them / alone, median of {ROUNDS}: {statistics.median(costs):.2f}")


# --- others hear, others take over ----------------------------------------------------------


async def elsewhere(database: str, subscriber: Subscriber) -> dict[bytes, int]:
    async with node_on(database, subscriber, dispatches=False) as node:
        return await emit(node)


def wake_up() -> None:
    with postgres(durable=True) as server, subscribers() as (listening, plain, _):
        database = asyncio.run(Databases(server.url()).new())
        with dispatching(database, 1) as made:
            made[0].go()
            emitted = uvloop.run(elsewhere(database, plain))
            arrived = dict(listening.arrivals())
    print(
        f"\nEmit to receipt at {RATE}/s, the dispatcher another process than the worker: {waits(emitted, arrived)}"
    )


async def arrivals_of(listening: Receiver, count: int) -> list[tuple[bytes, int]]:
    """The next `count` events that the receiver gets."""
    arrived: list[tuple[bytes, int]] = []
    while len(arrived) < count:
        await asyncio.sleep(0.01)
        arrived += listening.arrivals()
    return arrived


async def taken_over(database: str, subscriber: Subscriber, listening: Receiver) -> list[float]:
    """Seconds from the kill of the dispatcher that holds every lane to the first event by the other."""
    took = []
    async with node_on(database, subscriber, dispatches=False) as node:
        for _ in range(TAKEOVERS):
            with dispatching(database, 2, SHORT_LEASE) as (first, second):
                first.go()
                found = [await node.append(run, 1) for run in await node.new_runs(8)]
                await arrivals_of(listening, len(found))
                second.go()
                await asyncio.sleep(SHORT_LEASE / 2)
                # They are held, and have more to send than can be sent before the kill.
                first.process.send_signal(signal.SIGSTOP)
                for run in found:
                    await node.append(run, 1)
                began = time.time() * 1_000_000
                first.process.kill()
                arrived = await arrivals_of(listening, len(found))
                took.append((max(at for _, at in arrived) - began) / 1_000_000)
    return took


def takeover() -> None:
    with postgres(durable=True) as server, subscribers() as (listening, plain, _):
        database = asyncio.run(Databases(server.url()).new())
        took = asyncio.run(taken_over(database, plain, listening))
    longest = max(took) / SHORT_LEASE
    print(
        f"\nTakeover: from the kill of a dispatcher to the last event of its lanes by another, "
        f"lease {SHORT_LEASE:g} s: median {statistics.median(took):.2f} s, longest {max(took):.2f} s "
        f"({longest:.2f} of a lease)"
    )


def report() -> None:
    against_bare()
    more_dispatchers()
    wake_up()
    takeover()
    much_stored()
