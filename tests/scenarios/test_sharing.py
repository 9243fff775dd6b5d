"""A dispatcher whose store is shared: it may be out of reach, its answers may be lost, and others wait for its lanes."""

import asyncio

import pytest

from crewcast.core.backoff import SECOND
from crewcast.core.outcome import Outcome
from crewcast.dispatch.dispatcher import DispatchLimits
from crewcast.dispatch.transport import FakeTransport
from tests.scenarios.world import Gate, world
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
