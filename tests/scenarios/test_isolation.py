"""Bad subscribers on real sockets, all at once: a healthy one gets everything, in order and once."""

import asyncio
import random
import time
from contextlib import asynccontextmanager

import pytest
import uvloop

from crewcast.clock import RealClock
from crewcast.core.backoff import RetryPolicy
from crewcast.dispatch.dispatcher import Dispatcher, DispatchLimits
from crewcast.dispatch.sender import Sender, SenderLimits
from crewcast.store.sqlite import SQLiteStore
from tests.contract.sender.subscriber import DEV, Subscriber
from tests.scenarios.world import World, signatures
from tests.support.ports import reserved_port

OK = b"HTTP/1.1 204 No Content\r\n\r\n"
EVENTS = 20
RUNS = 10


def header(head: bytes, name: str) -> str:
    found = next(line for line in head.split(b"\r\n") if line.lower().startswith(name.encode() + b":"))
    return found.split(b":", 1)[1].strip().decode()


async def by_path(peer):
    """/ok answers, /hang never does, /drip sends a byte now and then, /reset ends the connection."""
    while True:
        head, _ = await peer.request()
        path = head.split(b" ", 2)[1].decode()
        if path == "/hang":
            await peer.never()
        elif path == "/drip":
            await peer.send(b"HTTP/1.1 200 OK\r\nx-slow: ")
            while True:
                await peer.send(b"x")
                await asyncio.sleep(0.02)
        elif path == "/reset":
            peer.reset()
            return
        else:
            await peer.send(OK)


@asynccontextmanager
async def node(folder, limits=None):
    store, clock = await SQLiteStore.open(folder), RealClock()
    sender = Sender(DEV, limits=SenderLimits(total=110))
    dispatcher = Dispatcher(
        store,
        sender,
        signatures,
        clock,
        random.random,
        policy=RetryPolicy(schedule=(50_000,), short_schedule=(50_000,)),
        limits=limits or DispatchLimits(per_origin=16),
    )
    working = asyncio.create_task(dispatcher.run())
    try:
        yield World(store, sender, clock)
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        await sender.close()
        await store.close()


async def all_taken(w, run):
    """The run's only lane took everything; its attempts tell how."""
    while (await w.store.lanes(run.id))[0].cursor < run.seq:
        await asyncio.sleep(0.01)
    return [attempt for _, attempt in await w.store.attempts(run.id)]


def check_healthy(subscriber, runs, attempts):
    got = {run.id: [] for run in runs}
    for head, _ in subscriber.requests:
        if header(head, "crewcast-kickoff-id") in got:
            got[header(head, "crewcast-kickoff-id")].append(int(header(head, "crewcast-lane-seq")))
    for run in runs:
        assert got[run.id] == list(range(1, EVENTS + 1))
    for made in attempts:
        assert [(attempt.seq, attempt.number, attempt.outcome.kind) for attempt in made] == [
            (seq, 1, "ok") for seq in range(1, EVENTS + 1)
        ]


async def busy_with(w, urls):
    """Runs for the bad ones, more than there are slots for each."""
    for link in urls:
        for _ in range(40):
            await w.say(await w.run(step=link), "step", "step")


async def deliver(w, link):
    runs = [await w.run(step=link) for _ in range(RUNS)]

    async def crew(run):
        for _ in range(EVENTS // 4):
            run = await w.say(run, *["step"] * 4)
        return run

    runs = await asyncio.gather(*map(crew, runs))
    return runs, await asyncio.gather(*(all_taken(w, run) for run in runs))


@pytest.mark.parametrize("factory", [uvloop.new_event_loop, asyncio.new_event_loop])
def test_a_hanging_a_refusing_and_a_dripping_one_leave_a_healthy_one_alone(tmp_path, factory):
    async def story(refusing):
        async with (
            Subscriber(by_path) as hanging,
            Subscriber(by_path) as dripping,
            Subscriber(by_path) as resetting,
            Subscriber(by_path) as healthy,
            node(tmp_path) as w,
        ):
            await busy_with(
                w,
                [
                    f"http://127.0.0.1:{hanging.port}/hang",
                    f"http://127.0.0.1:{dripping.port}/drip",
                    f"http://127.0.0.1:{resetting.port}/reset",
                    f"http://127.0.0.1:{refusing}/refused",
                ],
            )
            while len(hanging.requests) < 16 or len(dripping.requests) < 16 or not resetting.requests:
                await asyncio.sleep(0.01)
            check_healthy(healthy, *await deliver(w, f"http://127.0.0.1:{healthy.port}/ok"))
            assert (len(hanging.requests), len(dripping.requests)) == (16, 16), "they are still at it"

    with reserved_port() as port, asyncio.Runner(loop_factory=factory) as loop:
        loop.run(asyncio.wait_for(story(port), 100))


def test_on_a_shared_origin_a_healthy_url_goes_on_beside_one_that_hangs(tmp_path):
    """Fewer hang than the origin has slots: those that are left serve all others."""

    async def story():
        async with Subscriber(by_path) as shared, node(tmp_path) as w:
            origin = f"http://127.0.0.1:{shared.port}"
            for path in ("hang", "drip"):
                for _ in range(6):
                    await w.say(await w.run(step=f"{origin}/{path}"), "step", "step")
            while len(shared.requests) < 12:
                await asyncio.sleep(0.01)
            check_healthy(shared, *await deliver(w, f"{origin}/ok"))
            assert len(shared.requests) == 12 + RUNS * EVENTS

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(asyncio.wait_for(story(), 100))


def test_one_run_with_a_hanging_step_url_and_healthy_others(tmp_path):
    """The lanes of a run do not wait for each other; its crew event does, up to crew_wait."""

    async def story():
        limits = DispatchLimits(per_origin=16, crew_wait=3_000_000)
        async with Subscriber(by_path) as shared, node(tmp_path, limits) as w:
            origin = f"http://127.0.0.1:{shared.port}"
            run = await w.run(step=f"{origin}/hang", task=f"{origin}/ok", crew=f"{origin}/ok/crew")
            run = await w.say(run, "step", "task", "task", "task")
            while len(shared.requests) < 4:
                await asyncio.sleep(0.01)
            began = time.monotonic()
            await w.say(run, "crew")
            while len(shared.requests) < 5:
                await asyncio.sleep(0.01)
            assert time.monotonic() - began > 2.9
            paths = [head.split(b" ", 2)[1].decode() for head, _ in shared.requests]
            assert sorted(paths[:4]) == ["/hang", "/ok", "/ok", "/ok"]
            assert paths[4] == "/ok/crew"
            assert header(shared.requests[4][0], "crewcast-pending") == "1"

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(asyncio.wait_for(story(), 100))


def test_an_origin_that_works_again_gets_everything_in_order(tmp_path):
    async def story(port):
        async with node(tmp_path) as w:
            run = await w.run(step=f"http://127.0.0.1:{port}/ok")
            run = await w.say(run, *["step"] * EVENTS)
            while not (await w.store.lanes(run.id))[0].tries:
                await asyncio.sleep(0.01)
            async with Subscriber(by_path, port=port) as healthy:
                attempts = await all_taken(w, run)
                assert [int(header(head, "crewcast-lane-seq")) for head, _ in healthy.requests] == list(
                    range(1, EVENTS + 1)
                )
                assert {attempt.outcome.kind for attempt in attempts} == {"refused", "ok"}

    with reserved_port() as port, asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(asyncio.wait_for(story(port), 100))
