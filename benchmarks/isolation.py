"""What bad or many subscribers cost the others: hanging ones, idle ones, and ones never met before."""

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop
from msgspec.structs import replace

from benchmarks import delivery, receiver
from benchmarks.delivery import EGRESS, Loopback, Node, Subscriber, attempts_in
from crewcast.clock import RealClock
from crewcast.core import ids, url
from crewcast.core import run as runs
from crewcast.core.event import Channel
from crewcast.core.lane import Lane
from crewcast.core.outcome import Outcome
from crewcast.core.run import Run
from crewcast.dispatch.dispatcher import Dispatcher
from crewcast.dispatch.sender import Sender
from crewcast.dispatch.transport import Headers
from crewcast.store.sqlite import SQLiteStore
from tests.contract.sender.subscriber import Authority

HANGING = 100
RUNS_EACH = 20
HEALTHY_RUNS = 20
RATE = 200
SECONDS = 5
ROUNDS = 5
IDLE = 100_000
COLD = 1_000


async def waits(target: url.Target, hanging: Sequence[str], folder: Path) -> dict[bytes, int]:
    """When each event of the healthy runs was handed to the store, while all lanes of the others hang."""
    store = await SQLiteStore.open(folder)
    with attempts_in(folder) as made:
        node = Node(store, made, Subscriber(target))
        for link in hanging:
            node.target = url.parse(link)
            for run in await node.new_runs(RUNS_EACH):
                await node.append(run, 2)
        node.target = target
        found = await node.new_runs(HEALTHY_RUNS)
        await asyncio.sleep(1)
        emitted: dict[bytes, int] = {}
        began = time.perf_counter()
        for n in range(RATE * SECONDS):
            await asyncio.sleep(max(0.0, began + n / RATE - time.perf_counter()))
            run = found[n % len(found)]
            emitted[ids.event_id(run.id, run.seq + 1).encode()] = node.clock.now()
            found[n % len(found)] = await node.append(run, 1)
        await node.settled(found)
        node.abandon()
        await node.close()
        await store.close()
        return emitted


def p99(emitted: dict[bytes, int], arrivals: list[tuple[bytes, int]]) -> float:
    arrived = dict(arrivals)
    took = sorted((arrived[name] - at) / 1000 for name, at in emitted.items())
    return took[len(took) * 99 // 100]


def hanging_ones() -> None:
    ratios = []
    print(f"\nIsolation: {RATE} events/s to a healthy subscriber, alone and while {HANGING} origins hang")
    with receiver.running(HANGING) as listening, tempfile.TemporaryDirectory() as folder:
        target = url.parse(listening.url)
        for n in range(ROUNDS):
            found = []
            for name, hanging in (("alone", ()), ("beside", listening.hanging)):
                emitted = uvloop.run(waits(target, hanging, Path(folder, f"{name}-{n}")))
                found.append(p99(emitted, listening.arrivals()))
            ratios.append(found[1] / found[0])
            print(f"    round {n + 1}: p99 alone {found[0]:6.2f} ms   beside {found[1]:6.2f} ms")
    print(f"    beside / alone, median of {ROUNDS}: {statistics.median(ratios):.2f}   (wanted: at most 1.5)")


class Accepting:
    """Every subscriber takes everything at once."""

    async def post(self, target: url.Target, headers: Headers, body: bytes) -> Outcome:  # noqa: ARG002
        return Outcome("ok", 204)


def memory() -> float:
    """MB of this process that are in memory."""
    kilobytes = subprocess.run(
        ["ps", "-o", "rss=", "-p", str(os.getpid())], check=True, capture_output=True, text=True
    ).stdout
    return int(kilobytes) / 1024


async def idle(folder: Path) -> None:
    store, clock = await SQLiteStore.open(folder), RealClock()
    dispatcher = Dispatcher(store, Accepting(), delivery.KEYS.signer, clock, lambda: 0.5)
    working = asyncio.create_task(dispatcher.run())
    await asyncio.sleep(0.5)
    before, most = memory(), 0.0
    for first in range(0, IDLE, 1000):
        made = await _runs(store, clock, 1000, first)
        await asyncio.gather(*(_say(store, clock, run) for run in made))
        most = max(most, memory())
    while await store.next_due() is not None or dispatcher.lanes_held:
        await asyncio.sleep(0.2)
    after = memory()
    print(
        f"    {before:.0f} MB before, at most {most:.0f} MB while their events were sent, {after:.0f} MB when all are idle"
    )
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    await store.close()


async def _runs(store: SQLiteStore, clock: RealClock, count: int, first: int) -> list[Run]:
    made = []
    for n in range(first, first + count):
        now = clock.now()
        run = runs.new_run(ids.run_id(now, os.urandom(10)), "bench", b"{}", now)
        origin = f"https://s{n % 1000}.example"
        lane = Lane(run.id, 1, f"{origin}/hook", origin, Channel.STEP)
        made.append(store.create_run(run, [lane], None, now))
    await asyncio.gather(*made)
    return await store.claim_runs(["bench"], count, "bench", clock.now(), delivery.LEASE)


async def _say(store: SQLiteStore, clock: RealClock, run: Run) -> None:
    now = clock.now()
    assert await store.append(replace(run, seq=1), [delivery.event(run.id, 1, now)], "bench")


def idle_ones() -> None:
    print(f"\nIdle: {IDLE} runs at 1000 origins that go on, each with a lane that has sent its event")
    # A process of its own: nothing else is in its memory.
    code = "import sys, uvloop; from pathlib import Path; from benchmarks import isolation; "
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-c", code + "uvloop.run(isolation.idle(Path(sys.argv[1])))", folder], check=True
        )


async def cold(port: int, authority: Authority, name: str) -> float:
    """Handshakes a second: each request goes to a name that was never met before."""
    sender = Sender(EGRESS, resolver=Loopback(), ssl_context=authority.client())
    slots = asyncio.Semaphore(delivery.CONCURRENCY)

    async def one(n: int) -> None:
        async with slots:
            target = url.parse(f"https://s{n}.{name}:{port}/hook")
            outcome = await sender.post(target, [(b"webhook-id", b"%d" % n)], b"{}")
            assert outcome.accepted, outcome

    began = time.perf_counter()
    await asyncio.gather(*map(one, range(COLD)))
    took = time.perf_counter() - began
    await sender.close()
    return COLD / took


def cold_ones() -> None:
    print(f"\nCold origins: {COLD} requests, each to a new name over TLS, {delivery.CONCURRENCY} at once")
    with tempfile.TemporaryDirectory() as folder:
        authority = Authority(Path(folder))
        authority.server("*.bench.example")
        [certificate] = Path(folder).glob("*.pem")
        with receiver.running(certificate=certificate) as listening:
            found = [uvloop.run(cold(listening.tls, authority, "bench.example")) for _ in range(3)]
    print(
        f"    {statistics.median(found):.0f} handshakes a second, the subscriber's side on the same machine"
    )


def report() -> None:
    hanging_ones()
    idle_ones()
    cold_ones()
