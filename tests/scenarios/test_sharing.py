"""A dispatcher whose store is shared: it may be out of reach, its answers may be lost, and others wait for its lanes."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from crewcast.clock import ManualClock
from crewcast.core.backoff import SECOND
from crewcast.core.outcome import Outcome
from crewcast.dispatch.dispatcher import Dispatcher, DispatchLimits
from crewcast.dispatch.transport import FakeTransport
from crewcast.store.postgres import PostgresStore
from tests.scenarios.world import Gate, World, signatures, world
from tests.support.postgres import databases
from tests.support.shaky import Shaky

HOOK = "http://sub.example/hook"
LEASE = 8 * SECOND
LIMITS = DispatchLimits(lease=LEASE)


def test_lanes_of_a_claim_that_was_not_answered_are_not_kept_from_others(tmp_path):
    async def story():
        shaky: list[Shaky] = []

        def seen_through(store):
            shaky.append(Shaky(store))
            return shaky[0]

        async with world(tmp_path, FakeTransport(), limits=LIMITS, seen_through=seen_through) as w:
            # A lane that it works on keeps its lease all the time.
            busy = await w.say(await w.run(step=HOOK), "step")
            await w.until(lambda: len(w.sent()) == 1)
            shaky[0].deaf = {"claim_lanes"}
            await w.say(await w.run(step=HOOK), "step")
            await w.until(lambda: not shaky[0].deaf)
            for n in range(2, 12):
                w.clock.advance(SECOND)
                busy = await w.say(busy, "step")
                await w.until(lambda n=n: [path for path, _ in w.sent()].count("/hook") >= n)
            await w.quiet()
            assert [numbers for _, numbers in w.sent()].count("1/1/1") == 2
            assert len(w.sent()) == 12
            assert w.clock.now() < 1_750_000_000_000_000 + 2 * LEASE

    asyncio.run(story())


def test_a_store_that_is_out_of_reach_for_a_while_loses_and_reorders_nothing(tmp_path):
    async def story():
        shaky: list[Shaky] = []

        def seen_through(store):
            shaky.append(Shaky(store))
            return shaky[0]

        transport = Gate(HOOK)
        async with world(tmp_path, transport, limits=LIMITS, seen_through=seen_through) as w:
            run = await w.say(await w.run(step=HOOK), "step", "step", "step")
            await w.until(lambda: len(w.sent()) == 1)
            shaky[0].down = True
            transport.let_go(HOOK)
            for _ in range(5):
                w.clock.advance(SECOND)
                await w.quiet()
            shaky[0].down = False
            run = await w.say(run, "step")
            for _ in range(9):
                w.clock.advance(SECOND)
                await w.quiet()
            seqs = [int(numbers.split("/")[0]) for _, numbers in w.sent()]
            assert list(dict.fromkeys(seqs)) == [1, 2, 3, 4]
            [lane] = await w.store.lanes(run.id)
            assert (lane.cursor, lane.settled) == (4, 4)
            assert await w.store.dead_letters(run.id) == []

    asyncio.run(story())


@pytest.mark.parametrize("verb", ["settle", "lane_events", "release_lane", "pending_beside", "health"])
def test_an_answer_that_is_lost_loses_and_reorders_nothing(tmp_path, verb):
    async def story():
        shaky: list[Shaky] = []

        def seen_through(store):
            shaky.append(Shaky(store))
            shaky[0].deaf = {verb}
            return shaky[0]

        script = {HOOK: [Outcome("ok", 204), Outcome("refused")]}
        async with world(tmp_path, FakeTransport(script), limits=LIMITS, seen_through=seen_through) as w:
            run = await w.say(await w.run(step=HOOK, crew=HOOK), "step", "step", "step")
            for _ in range(12):
                w.clock.advance(SECOND)
                await w.quiet()
            await w.say(run, "crew")
            for _ in range(2 * LEASE // SECOND):
                w.clock.advance(SECOND)
                await w.quiet()
            assert shaky[0].deaf == set()
            seqs = [int(numbers.split("/")[0]) for _, numbers in w.sent()]
            assert list(dict.fromkeys(seqs)) == [1, 2, 3, 4]
            [lane] = await w.store.lanes(run.id)
            assert lane.cursor == 4
            assert await w.store.dead_letters(run.id) == []

    asyncio.run(story())


# --- a dispatcher that was suspended ------------------------------------------------------------


def numbers(w):
    return [numbers for _, numbers in w.sent()]


class Asleep(Shaky):
    """While it is `down`, what is asked waits: nobody asks anything in a process that is suspended."""

    async def _ask(self, name, verb, *args, **named):
        while self.down:
            await asyncio.sleep(0.001)
        return await super()._ask(name, verb, *args, **named)


def test_after_a_suspension_nothing_is_sent_of_a_lane_that_another_has_taken(tmp_path):
    async def story():
        asleep: list[Asleep] = []

        def seen_through(store):
            asleep.append(Asleep(store))
            return asleep[0]

        gate = Gate(HOOK)
        async with world(tmp_path, gate, limits=LIMITS, seen_through=seen_through, shared=True) as w:
            await w.say(await w.run(step=HOOK), *["step"] * 5)
            await w.until(lambda: len(w.sent()) == 1)
            asleep[0].down = True
            w.clock.advance(LEASE)
            [lane] = await w.store.claim_lanes(10, "other", w.clock.now(), LEASE)
            asleep[0].down = False
            gate.let_go(HOOK)
            await w.quiet()
            assert numbers(w) == ["1/1/1"]
            await w.store.release_lane(lane, w.clock.now())
            w.clock.advance(SECOND)
            await w.until(lambda: len(w.sent()) == 6)
            assert numbers(w)[1:] == [f"{n}/{n}/1" for n in range(1, 6)]

    asyncio.run(story())


@pytest.mark.parametrize("ordered", [True, False])
def test_after_a_suspension_what_nobody_has_taken_goes_on_and_nothing_is_sent_twice(tmp_path, ordered):
    async def story():
        gate = Gate(HOOK)
        async with world(tmp_path, gate, limits=LIMITS, shared=True) as w:
            run = await w.say(await w.run(step=HOOK, ordered=ordered), *["step"] * 20)
            flying = 1 if ordered else 16
            await w.until(lambda: len(w.sent()) == flying)
            w.clock.advance(2 * LEASE)
            gate.let_go(HOOK)
            await w.until(lambda: len(w.sent()) == 20)
            await w.quiet()
            assert sorted(numbers(w)) == sorted(f"{n}/{n}/1" for n in range(1, 21))
            # So does a lane that rested meanwhile.
            w.clock.advance(2 * LEASE)
            await w.say(run, "step")
            await w.until(lambda: len(w.sent()) == 21)
            await w.lanes(run, lambda lanes: lanes[0].cursor == 21)

    asyncio.run(story())


def test_a_lease_that_is_prolonged_in_time_is_kept_however_long_an_answer_takes(tmp_path):
    async def story():
        shaky: list[Shaky] = []

        def seen_through(store):
            shaky.append(Shaky(store))
            return shaky[0]

        gate = Gate(HOOK)
        async with world(tmp_path, gate, limits=LIMITS, seen_through=seen_through, shared=True) as w:
            await w.say(await w.run(step=HOOK), *["step"] * 5)
            await w.until(lambda: len(w.sent()) == 1)
            for _ in range(5 * LEASE // SECOND):
                w.clock.advance(SECOND)
                await w.quiet()
            gate.let_go(HOOK)
            await w.until(lambda: len(w.sent()) == 5)
            assert "release_lane" not in shaky[0].asked

    asyncio.run(story())


@asynccontextmanager
async def dispatcher(store, transport):
    """Of a node of its own, with a clock of its own: as long as that stands, the node is suspended."""
    w = World(store, transport, ManualClock())
    w.dispatcher = Dispatcher(store, transport, signatures, w.clock, lambda: 0.5, limits=LIMITS, shared=True)
    working = asyncio.create_task(w.dispatcher.run())
    try:
        yield w
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        await store.close()


def test_of_two_dispatchers_over_postgresql_the_one_that_slept_sends_nothing_of_what_the_other_has_taken():
    async def story(url):
        gate = Gate(HOOK)
        async with dispatcher(await PostgresStore.open(url), gate) as one:
            run = await one.say(await one.run(step=HOOK), *["step"] * 5)
            await one.until(lambda: len(one.sent()) == 1)
            async with dispatcher(await PostgresStore.open(url), FakeTransport()) as two:
                for _ in range(LEASE // SECOND):
                    two.clock.advance(SECOND)
                    await two.quiet()
                await two.until(lambda: len(two.sent()) == 5)
                await two.lanes(run, lambda lanes: lanes[0].cursor == 5)
                run = await two.say(run, "step")
                await two.until(lambda: len(two.sent()) == 6)
                one.clock.advance(LEASE + SECOND)
                gate.let_go(HOOK)
                await one.quiet()
                run = await two.say(run, "step")
                await two.until(lambda: len(two.sent()) == 7)
                await one.quiet()
                assert numbers(one) == ["1/1/1"]
                assert numbers(two) == [f"{n}/{n}/1" for n in range(1, 8)]

    with databases() as found:
        asyncio.run(story(asyncio.run(found.new())))
