"""Durable delivery (commit, POST, outcome) against a bare loop of the same sender without storage."""

import asyncio
import ipaddress
import os
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import msgspec
import uvloop
from msgspec.structs import replace

from benchmarks import receiver
from benchmarks.receiver import Receiver
from crewcast.clock import RealClock
from crewcast.contract import webhooks
from crewcast.core import ids, url
from crewcast.core import run as runs
from crewcast.core.event import Channel, Event
from crewcast.core.keyring import KeyRing
from crewcast.core.lane import Lane
from crewcast.core.run import Run
from crewcast.dispatch.dispatcher import Dispatcher
from crewcast.dispatch.egress import Address, EgressPolicy
from crewcast.dispatch.sender import Sender
from crewcast.store.protocol import Store
from crewcast.store.sqlite import SQLiteStore
from crewcast.store.sqlite.connection import FILE
from tests.contract.sender.subscriber import Authority

# (lanes, events of each): few that are busy, and many that are mostly idle.
SHAPES = ((64, 400), (10_000, 4))
CONCURRENCY = 64  # requests in flight, as the dispatcher has them for one origin
EVENTS_PER_APPEND = 4  # a step of a ReAct agent: action, tool_call, tool_result, observation
ROUNDS = 5
RATE = 200  # events per second for the latency
RATE_SECONDS = 10
RATE_LANES = 20
KEYS = KeyRing(bytes(32))
BOTH = KeyRing(bytes(32), asymmetric=True)
EGRESS = EgressPolicy(allow_http=True, allow_loopback=True)
NAME = "subscriber.bench.example"
LEASE = 3_600_000_000
TEXT = "What a tool said. " * 48  # a payload of about 1 KB


def draft(run_id: str, at: int) -> webhooks.Draft:
    return webhooks.step(
        run_id, "research_task", "tool_result", at, agent="Researcher", tool="search", output=TEXT
    )


def event(run_id: str, seq: int, at: int) -> Event:
    return webhooks.encode(draft(run_id, at), run_id, seq, 1, 1 << 20)


class Loopback:
    """Every name is this machine's."""

    async def resolve(self, host: str, port: int) -> list[Address]:  # noqa: ARG002
        return [ipaddress.ip_address("127.0.0.1")]

    def close(self) -> None: ...


@dataclass(frozen=True)
class Subscriber:
    """Where events go, and a sender that trusts it. `authority` is for https."""

    target: url.Target
    authority: Authority | None = None

    def sender(self) -> Sender:
        if self.authority is None:
            return Sender(EGRESS)
        return Sender(EGRESS, resolver=Loopback(), ssl_context=self.authority.client())


@contextmanager
def subscribers() -> Iterator[tuple[Receiver, Subscriber, Subscriber]]:
    """One process, met without and with TLS."""
    with tempfile.TemporaryDirectory() as folder:
        authority = Authority(Path(folder))
        authority.server(NAME)
        [certificate] = Path(folder).glob("*.pem")
        with receiver.running(certificate=certificate) as listening:
            plain = Subscriber(url.parse(listening.url))
            yield listening, plain, Subscriber(url.parse(f"https://{NAME}:{listening.tls}/hook"), authority)


async def bare(subscriber: Subscriber, lanes: int, events: int) -> float:
    """Events per second of loops that encode, sign and POST, and keep nothing."""
    target, sender = subscriber.target, subscriber.sender()
    signer = KEYS.signer(target.origin)
    clock = RealClock()
    slots = asyncio.Semaphore(CONCURRENCY)

    async def loop(run_id: str) -> None:
        lane = Lane(run_id, 1, "", target.origin, Channel.STEP)
        for seq in range(1, events + 1):
            async with slots:
                now = clock.now()
                one = event(run_id, seq, now)
                timestamp = now // 1_000_000
                signed = signer.sign(one.id, timestamp, one.body)
                headers = webhooks.headers(one, lane, timestamp=timestamp, signatures=signed)
                outcome = await sender.post(target, headers, one.body)
                assert outcome.accepted, outcome

    began = time.perf_counter()
    await asyncio.gather(*(loop(ids.run_id(clock.now(), os.urandom(10))) for _ in range(lanes)))
    took = time.perf_counter() - began
    await sender.close()
    return lanes * events / took


class Node:
    """A store, a sender and a dispatcher, and runs whose events are appended by the benchmark.

    `made` tells how many attempts the store has. Without `dispatches` other processes deliver.
    """

    def __init__(
        self,
        store: Store,
        made: Callable[[], Awaitable[int]],
        subscriber: Subscriber,
        keys: KeyRing = KEYS,
        *,
        dispatches: bool = True,
    ) -> None:
        self.store = store
        self._attempts = made
        self._before: int | None = None
        self.clock = RealClock()
        self.sender = subscriber.sender()
        self.dispatcher = Dispatcher(store, self.sender, keys.signer, self.clock, random.random)
        self.target = subscriber.target
        self._patience = 5_000_000
        work = self.dispatcher.run() if dispatches else asyncio.sleep(0)
        self._dispatching = asyncio.create_task(work)

    def abandon(self) -> None:
        """What is in flight is not waited for."""
        self._patience = 0

    async def close(self) -> None:
        await self.dispatcher.stop(self._patience)
        self._dispatching.cancel()
        await asyncio.gather(self._dispatching, return_exceptions=True)
        await self.sender.close()

    async def new_runs(self, count: int) -> list[Run]:
        if self._before is None:
            self._before = await self._attempts()
        made = []
        for _ in range(count):
            run = runs.new_run(ids.run_id(self.clock.now(), os.urandom(10)), "bench", b"{}", self.clock.now())
            link = self.target.origin + self.target.path
            lane = Lane(run.id, 1, link, self.target.origin, Channel.STEP)
            made.append(self.store.create_run(run, [lane], None, self.clock.now()))
        await asyncio.gather(*made)
        return await self.store.claim_runs(["bench"], count, "bench", self.clock.now(), LEASE)

    async def append(self, run: Run, count: int) -> Run:
        """Commits `count` events of the run together, as the worker does with whatever has arrived."""
        now = self.clock.now()
        after = replace(run, seq=run.seq + count)
        events = [event(run.id, seq, now) for seq in range(run.seq + 1, after.seq + 1)]
        assert await self.store.append(after, events, "bench")
        return after

    async def settled(self, found: list[Run]) -> None:
        """Until every event of the runs has its outcome committed. Asking must not cost what is measured."""
        wanted = sum(run.seq for run in found)
        while await self._attempts() - (self._before or 0) < wanted:
            await asyncio.sleep(0.002)


@contextmanager
def attempts_in(folder: Path) -> Iterator[Callable[[], Awaitable[int]]]:
    """How many attempts a SQLite store has, without asking it."""
    file = sqlite3.connect(f"file:{folder / FILE}?mode=ro", uri=True)

    async def made() -> int:
        return int(file.execute("SELECT ifnull(max(id), 0) FROM attempt").fetchone()[0])

    try:
        yield made
    finally:
        file.close()


async def deliver(node: Node, lanes: int, events: int) -> float:
    """Events per second from the first append to the last committed outcome."""
    found = await node.new_runs(lanes)

    async def crew(run: Run) -> Run:
        for _ in range(events // EVENTS_PER_APPEND):
            run = await node.append(run, EVENTS_PER_APPEND)
        return run

    began = time.perf_counter()
    ended = await asyncio.gather(*map(crew, found))
    await node.settled(list(ended))
    return lanes * events / (time.perf_counter() - began)


async def emit(node: Node) -> dict[bytes, int]:
    """When each event was handed to the store, at an even rate over all lanes."""
    found = await node.new_runs(RATE_LANES)
    emitted: dict[bytes, int] = {}
    began = time.perf_counter()
    for n in range(RATE * RATE_SECONDS):
        await asyncio.sleep(max(0.0, began + n / RATE - time.perf_counter()))
        run = found[n % RATE_LANES]
        emitted[ids.event_id(run.id, run.seq + 1).encode()] = node.clock.now()
        found[n % RATE_LANES] = await node.append(run, 1)
    await node.settled(found)
    return emitted


def waits(emitted: dict[bytes, int], arrived: dict[bytes, int]) -> str:
    """From the hands of the store's caller to the receiver's. A lane is claimed, and mostly a connection made, for its
    first event.
    """
    took = [(arrived[name] - at) / 1000 for name, at in emitted.items()]
    first, later = sorted(took[:RATE_LANES]), sorted(took[RATE_LANES:])
    p50, p99 = later[len(later) // 2], later[len(later) * 99 // 100]
    return (
        f"p50 {p50:.2f} ms, p99 {p99:.2f} ms, {len(later)} events; "
        f"the first of a lane: p50 {first[len(first) // 2]:.2f} ms, longest {first[-1]:.2f} ms"
    )


async def durable(
    subscriber: Subscriber, folder: Path, lanes: int, events: int, keys: KeyRing = KEYS
) -> float:
    """The same over a SQLite store."""
    store = await SQLiteStore.open(folder)
    with attempts_in(folder) as made:
        node = Node(store, made, subscriber, keys)
        rate = await deliver(node, lanes, events)
        await node.close()
    await store.close()
    return rate


async def latency(subscriber: Subscriber, folder: Path) -> dict[bytes, int]:
    store = await SQLiteStore.open(folder)
    with attempts_in(folder) as made:
        node = Node(store, made, subscriber)
        emitted = await emit(node)
        await node.close()
    await store.close()
    return emitted


@contextmanager
def cores(count: int) -> Iterator[None]:
    """This process and those it starts on `count` cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(sorted(before)[:count]))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def compare(listening: Receiver, subscriber: Subscriber, folder: Path, lanes: int, events: int) -> None:
    ratios = []
    for n in range(ROUNDS):
        plain = uvloop.run(bare(subscriber, lanes, events))
        kept = uvloop.run(durable(subscriber, folder / str(n), lanes, events))
        listening.arrivals()
        ratios.append(kept / plain)
        print(f"      round {n + 1}: bare {plain:8.0f}/s   durable {kept:8.0f}/s   ratio {kept / plain:.2f}")
    print(f"      durable / bare, median of {ROUNDS}: {statistics.median(ratios):.2f}")


def signed_twice(subscriber: Subscriber, folder: Path, lanes: int, events: int) -> None:
    ratios = []
    for n in range(ROUNDS):
        once = uvloop.run(durable(subscriber, folder / f"once-{n}", lanes, events))
        twice = uvloop.run(durable(subscriber, folder / f"twice-{n}", lanes, events, BOTH))
        ratios.append(twice / once)
    print(f"    durable, signed by v1 and v1a / by v1 alone: {statistics.median(ratios):.2f}")


def report() -> None:
    size = len(msgspec.json.encode(draft(ids.run_id(0, bytes(10)), 0).payload))
    counts: list[int | None] = [None]
    if hasattr(os, "sched_setaffinity"):
        counts = [*sorted({1, len(os.sched_getaffinity(0))})]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for lanes, events in SHAPES:
            print(f"\nDelivery: {lanes} lanes, {events} events each of {size} bytes, the receiver a process")
            for count in counts:
                where = "as the system likes" if count is None else f"on {count} cores"
                where = "sharing one core (wanted: at least 0.65)" if count == 1 else where
                with cores(count) if count else nullcontext(), subscribers() as (listening, plain, secure):
                    for kind, subscriber in (("https", secure), ("http", plain)):
                        print(f"    {kind}, sender, store and receiver {where}:")
                        compare(listening, subscriber, folder / f"{lanes}-{count}-{kind}", lanes, events)
                    signed_twice(secure, folder / f"{lanes}-{count}", lanes, events)
        with subscribers() as (listening, plain, _):
            emitted = uvloop.run(latency(plain, folder / "latency"))
            arrived = dict(listening.arrivals())
        print(f"    emit to receipt at {RATE}/s: {waits(emitted, arrived)}")
