"""What an event costs while a million others wait, against a store that has nothing else."""

import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path

import uvloop
from msgspec.structs import replace

from benchmarks import receiver
from benchmarks.delivery import LEASE, SHAPES, Subscriber, durable
from crewcast.clock import RealClock
from crewcast.core import ids, url
from crewcast.core import run as runs
from crewcast.core.backoff import DAY, RetryPolicy
from crewcast.core.event import Channel, Event
from crewcast.core.lane import Attempt, Lane, settle
from crewcast.core.outcome import Outcome
from crewcast.core.run import Run
from crewcast.store.protocol import Settlement
from crewcast.store.sqlite import SQLiteStore

RUNS = 10_000
EVENTS = 100  # each
ORIGINS = [f"https://away-{n}.example" for n in range(100)]
AT_WORK = 64
TURNS = 50
ROUNDS = 3
BODY = b'{"waits": "%s"}' % (b"x" * 180)
OK, POLICY, CLOCK = Outcome("ok", 200), RetryPolicy(), RealClock()


async def new_runs(store: SQLiteStore, origins: list[str], now: int) -> list[Run]:
    """Running runs, each with a lane at one of `origins`."""
    made = [runs.new_run(ids.run_id(now, os.urandom(10)), "waiting", b"{}", now) for _ in origins]
    lanes = [
        Lane(run.id, 1, f"{origin}/hook", origin, Channel.STEP)
        for run, origin in zip(made, origins, strict=True)
    ]
    await asyncio.gather(
        *(store.create_run(run, [lane], None, now) for run, lane in zip(made, lanes, strict=True))
    )
    return await store.claim_runs(["waiting"], len(made), "bench", now, LEASE)


async def append(store: SQLiteStore, run: Run, count: int, at: int) -> Run:
    after = replace(run, seq=run.seq + count)
    events = [Event(run.id, seq, Channel.STEP, "step", BODY, at) for seq in range(run.seq + 1, after.seq + 1)]
    assert await store.append(after, events, "bench")
    return after


async def fill(folder: Path) -> int:
    """A million events of subscribers that are away: each lane waits until tomorrow; when that is."""
    store = await SQLiteStore.open(folder)
    tomorrow = CLOCK.now() + DAY
    for start in range(0, RUNS, 500):
        made = await new_runs(store, [ORIGINS[n % len(ORIGINS)] for n in range(start, start + 500)], tomorrow)
        await asyncio.gather(*(append(store, run, EVENTS, tomorrow) for run in made))
    rows = await store.origins()
    assert sum(row.events for row in rows) == RUNS * EVENTS
    await store.close()
    return tomorrow


async def verbs(folder: Path, now: int) -> float:
    """Microseconds of the processor for an event's way through the store: its lane is claimed and given back.

    All the others are due too by then, at origins that take nothing.
    """
    store = await SQLiteStore.open(folder)
    made = await new_runs(store, ["https://well.example"] * AT_WORK, now)
    began = time.process_time()
    for _ in range(TURNS):
        made = list(await asyncio.gather(*(append(store, run, 4, now) for run in made)))
        assert await store.next_due(ORIGINS) is not None
        lanes = await store.claim_lanes(AT_WORK, "bench", now, LEASE, ORIGINS, AT_WORK)
        assert len(lanes) == AT_WORK
        await asyncio.gather(*(deliver(store, lane, now) for lane in lanes))
    took = time.process_time() - began
    for run in made:
        assert await store.append(runs.end(run, runs.RunState.COMPLETED, now), [], "bench")
    await store.close()
    return took / (AT_WORK * TURNS * 4) * 1e6


async def deliver(store: SQLiteStore, lane: Lane, now: int) -> None:
    writing = []
    found = await store.lane_events(lane, 64)
    for _, head in found:
        after, verdict = settle(lane, head, OK, POLICY, now, 0.5)
        attempt = Attempt(lane.run_id, lane.number, head.seq, 1, now, OK, verdict)
        writing.append(store.settle(Settlement(after, attempt, release=head is found[-1][1])))
        lane = after
    assert all(await asyncio.gather(*writing))


def report() -> None:
    print(f"\nWaiting: {RUNS * EVENTS} events in {RUNS} lanes at {len(ORIGINS)} origins, or none")
    with tempfile.TemporaryDirectory() as folder, receiver.running() as listening:
        target = url.parse(listening.url)
        full = Path(folder, "full")
        tomorrow = uvloop.run(fill(full))
        through, sent = [], []
        for n in range(ROUNDS):
            empty = Path(folder, f"empty-{n}")
            alone, beside = (uvloop.run(verbs(where, tomorrow)) for where in (empty, full))
            through.append(beside / alone)
            fast, slow = (
                uvloop.run(durable(Subscriber(target), where, *SHAPES[0])) for where in (empty, full)
            )
            sent.append(fast / slow)
            print(
                f"    round {n + 1}: store {alone:5.1f} us an event alone, {beside:5.1f} us beside   "
                f"end to end {fast:6.0f}/s alone, {slow:6.0f}/s beside"
            )
            listening.arrivals()
    print(
        f"    cost beside / cost alone, median of {ROUNDS}: store {statistics.median(through):.2f}, "
        f"end to end {statistics.median(sent):.2f}   (wanted: at most 2)"
    )
