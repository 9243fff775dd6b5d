"""What the lanes of an origin share: breaker, pause, rate, and their part of the lanes at work."""

import asyncio
import logging

import pytest
from msgspec.structs import replace

from crewcast.core.backoff import SECOND, RetryPolicy
from crewcast.core.origin import Breaker, Health, HealthPolicy
from crewcast.core.outcome import Outcome
from crewcast.dispatch.dispatcher import DispatchLimits
from crewcast.dispatch.transport import FakeTransport
from tests.scenarios.world import Gate, world

ORIGIN, OTHER = "http://sub.example", "http://other.example"
HOOK, ELSEWHERE = f"{ORIGIN}/hook", f"{OTHER}/hook"
OK, DOWN, BUSY = Outcome("ok", 204), Outcome("refused"), Outcome("status:429", 429)
# With the roll of 0.5 there is no jitter in a wait, and half a second in what is parked.
PARKED = SECOND // 2
THREE = HealthPolicy(failures=3)


def count(w, path="/hook"):
    return len([one for one, _ in w.sent() if one == path])


async def health_of(w, state):
    """What is stored of the origin, once it is in that state; None for what is well."""
    while True:
        found = {health.origin: health for health in await w.store.health()}.get(ORIGIN)
        if (found.state if found else None) is state:
            return found
        await asyncio.sleep(0.001)


def test_a_breaker_opens_holds_everybody_back_and_lets_one_probe_through(tmp_path, caplog):
    caplog.set_level(logging.INFO)

    async def story():
        transport = Gate(script={HOOK: [DOWN] * 4}, otherwise=OK)
        async with world(tmp_path, transport, health=THREE) as w:
            for _ in range(3):
                await w.say(await w.run(step=HOOK), "step")
            await w.until(lambda: len(transport.sent) == 3)
            opened = await health_of(w, Breaker.OPEN)
            assert (opened.failures, opened.retry_at) == (3, w.clock.now() + 30 * SECOND)
            # New lanes and retries that are due are not tried, and not kept in memory either.
            for _ in range(20):
                await w.say(await w.run(step=HOOK), "step")
            w.clock.advance(30 * SECOND - 1)
            await w.quiet()
            assert len(transport.sent) == 3
            # One goes when the time has come; the others wait for its answer.
            transport.held.add(ORIGIN)
            w.clock.advance(1)
            await w.until(lambda: len(transport.sent) == 4)
            for _ in range(5):
                w.clock.advance(SECOND)
                await w.quiet()
            assert len(transport.sent) == 4
            await health_of(w, Breaker.HALF_OPEN)
            # It fails, so the wait is twice as long.
            transport.let_go(ORIGIN)
            again = await health_of(w, Breaker.OPEN)
            assert again.retry_at == w.clock.now() + 60 * SECOND
            w.clock.advance(60 * SECOND - 1)
            await w.quiet()
            assert len(transport.sent) == 4
            # The next one is taken, so all go at once.
            w.clock.advance(1)
            await w.until(lambda: len(transport.sent) > 4)
            w.clock.advance(SECOND)
            await w.until(lambda: len({one.body for one in transport.sent}) == 23)
            await health_of(w, None)

    asyncio.run(asyncio.wait_for(story(), 60))
    said = [record.message for record in caplog.records if ORIGIN in record.message.split(": ")[0].split()]
    assert [line for line in said if "work" in line] == [
        f"{ORIGIN} does not work: refused, 3 times in a row; it is tried from time to time",
        f"{ORIGIN} works again",
    ]


def test_those_that_wait_go_as_soon_as_the_probe_is_answered(tmp_path):
    async def story():
        transport = Gate(script={HOOK: [DOWN] * 3}, otherwise=OK)
        async with world(tmp_path, transport, health=THREE) as w:
            for _ in range(3):
                await w.say(await w.run(step=HOOK), "step")
            await health_of(w, Breaker.OPEN)
            for _ in range(5):
                await w.say(await w.run(step=HOOK), "step")
            transport.held.add(ORIGIN)
            w.clock.advance(35 * SECOND)
            await w.until(lambda: len(transport.sent) == 4)
            w.clock.advance(2 * SECOND)
            await w.quiet()
            assert len(transport.sent) == 4
            transport.let_go(ORIGIN)
            await w.until(lambda: len(transport.sent) == 3 + 8)

    asyncio.run(story())


def test_the_lanes_of_an_open_origin_are_not_kept_in_memory(tmp_path):
    async def story():
        transport = Gate(ORIGIN, otherwise=DOWN)
        async with world(tmp_path, transport, limits=DispatchLimits(per_origin=4), health=THREE) as w:
            made = [await w.run(step=HOOK) for _ in range(6)]
            for run in made:
                await w.say(run, "step")
            await w.until(lambda: transport.flying[ORIGIN] == 4 and w.dispatcher.lanes_held > 4)
            transport.let_go(ORIGIN)
            await health_of(w, Breaker.OPEN)
            lanes = []
            for run in made:
                lanes += await w.lanes(run, lambda found: found[0].lease_token is None)
            assert len(transport.sent) == 4
            # Those four have their retry. One at least waited for its turn and is due when the origin may work
            # again; what was not claimed by then stays due, and is left out of claims.
            waits = [lane.due_at - w.clock.now() for lane in lanes]
            assert waits.count(5 * SECOND) == 4
            assert waits.count(30 * SECOND + PARKED) >= 1
            assert set(waits) <= {0, 5 * SECOND, 30 * SECOND + PARKED}
            assert sorted(lane.tries for lane in lanes) == [0, 0, 1, 1, 1, 1]
            await w.quiet()
            assert len(transport.sent) == 4

    asyncio.run(story())


def test_other_origins_go_on(tmp_path):
    async def story():
        async with world(tmp_path, FakeTransport({HOOK: [DOWN] * 99}), health=THREE) as w:
            for _ in range(5):
                await w.say(await w.run(step=HOOK), "step")
            await health_of(w, Breaker.OPEN)
            run = await w.run(step=ELSEWHERE)
            await w.say(run, *["step"] * 10)
            await w.until(lambda: len([one for one in w.transport.sent if one.target.origin == OTHER]) == 10)

    asyncio.run(story())


def test_a_breaker_is_remembered_over_a_restart(tmp_path):
    async def story():
        async with world(tmp_path, FakeTransport({HOOK: [DOWN] * 9}), health=THREE) as w:
            for _ in range(3):
                await w.say(await w.run(step=HOOK), "step")
            opened = await health_of(w, Breaker.OPEN)
            began = w.clock.now()
        async with world(tmp_path, FakeTransport(), health=THREE) as w:
            w.clock.advance(began - w.clock.now() + SECOND)
            await w.store.void_leases(w.clock.now())
            await w.say(await w.run(step=HOOK), "step")
            w.clock.advance(opened.retry_at - w.clock.now() - 1)
            await w.quiet()
            assert w.transport.sent == []
            w.clock.advance(SECOND)
            await w.until(lambda: len(w.transport.sent) == 4)
            await health_of(w, None)

    asyncio.run(story())


def test_a_probe_that_a_kill_cut_short_is_not_waited_for(tmp_path):
    async def story():
        async with world(tmp_path, FakeTransport(), health=THREE) as w:
            now = w.clock.now()
            half = Health(ORIGIN, Breaker.HALF_OPEN, 5, 1, now, now + 60 * SECOND, None, "refused")
            await w.store.save_origin(half)
        async with world(tmp_path, FakeTransport(), health=THREE) as w:
            await w.say(await w.run(step=HOOK), "step")
            await w.until(lambda: len(w.transport.sent) == 1)

    asyncio.run(story())


def test_a_reset_lets_everybody_go_at_once(tmp_path):
    async def story():
        async with world(tmp_path, FakeTransport({HOOK: [DOWN] * 3}), health=THREE) as w:
            for _ in range(3):
                await w.say(await w.run(step=HOOK), "step")
            await health_of(w, Breaker.OPEN)
            for _ in range(3):
                await w.say(await w.run(step=HOOK), "step")
            await w.quiet()
            assert len(w.transport.sent) == 3
            assert await w.store.reset_origin(ORIGIN, w.clock.now()) == 3
            await w.until(lambda: len(w.transport.sent) == 9)
            assert await w.store.health() == []

    asyncio.run(story())


@pytest.mark.parametrize("asked", [20 * SECOND, 200 * SECOND])
def test_two_throttled_lanes_pause_the_origin_for_what_it_asks_but_a_minute_at_most(tmp_path, asked):
    async def story():
        throttled = replace(BUSY, retry_after=asked)
        async with world(tmp_path, FakeTransport({HOOK: [throttled, throttled]})) as w:
            for _ in range(2):
                await w.say(await w.run(step=HOOK), "step")
            await w.until(lambda: len(w.transport.sent) == 2)
            await w.quiet()
            await w.say(await w.run(step=HOOK), "step")
            pause = min(asked, 60 * SECOND)
            w.clock.advance(pause - 1)
            await w.quiet()
            assert len(w.transport.sent) == 2
            w.clock.advance(1)
            await w.until(lambda: len(w.transport.sent) >= 3)

    asyncio.run(story())


def test_a_throttled_lane_waits_alone(tmp_path):
    async def story():
        throttled = replace(BUSY, retry_after=60 * SECOND)
        async with world(tmp_path, FakeTransport({HOOK: [throttled]})) as w:
            await w.say(await w.run(step=HOOK), "step")
            await w.until(lambda: len(w.transport.sent) == 1)
            await w.say(await w.run(step=HOOK), "step")
            await w.until(lambda: len(w.transport.sent) == 2)

    asyncio.run(story())


def test_a_rate_spaces_the_requests_of_an_origin_and_of_no_other(tmp_path):
    async def story():
        limits = DispatchLimits(rate=2)
        async with world(tmp_path, FakeTransport(), limits=limits) as w:
            made = [await w.run(step=HOOK), await w.run(step=HOOK)]
            for run in made:
                await w.say(run, "step", "step")
            for sent in range(1, 5):
                await w.until(lambda sent=sent: count(w) == sent)
                await w.quiet()
                assert count(w) == sent
                w.clock.advance(SECOND // 2 - 1)
                await w.quiet()
                assert count(w) == sent
                w.clock.advance(1)
            assert sorted(numbers for _, numbers in w.sent()) == ["1/1/1", "1/1/1", "2/2/1", "2/2/1"]
            await w.say(await w.run(step=ELSEWHERE), "step")
            await w.until(lambda: len(w.transport.sent) == 5)

    asyncio.run(story())


def test_of_several_dispatchers_each_takes_its_share_of_a_rate(tmp_path):
    async def story():
        async with world(tmp_path, FakeTransport(), limits=DispatchLimits(rate=2)) as w:
            run = await w.say(await w.run(step=HOOK), *["step"] * 9)
            sent = 0

            async def one_each(every):
                nonlocal sent
                sent += 1
                await w.until(lambda: count(w) == sent)
                w.clock.advance(every - 1)
                await w.quiet()
                assert count(w) == sent
                w.clock.advance(1)

            await one_each(SECOND // 2)
            w.dispatcher.among(4)
            sent += 1  # its turn was given before
            await w.until(lambda: count(w) == sent)
            await w.quiet()
            w.clock.advance(SECOND // 2)
            await one_each(2 * SECOND)
            await one_each(2 * SECOND)
            # Also at an origin that is met only now.
            await w.say(await w.run(step=ELSEWHERE), "step", "step")
            await w.until(lambda: len([1 for one in w.transport.sent if one.target.origin == OTHER]) == 1)
            w.dispatcher.among(0)  # it does not see itself: one, then
            assert run.seq == 9

    asyncio.run(story())


def test_a_hanging_origin_has_its_requests_in_flight_and_a_share_of_the_lanes(tmp_path):
    async def story():
        transport = Gate(ORIGIN)
        limits = DispatchLimits(lanes=256, per_origin=8)
        async with world(tmp_path, transport, limits=limits) as w:
            hanging = [await w.run(step=HOOK) for _ in range(300)]
            for run in hanging:
                await w.say(run, "step")
            await w.until(lambda: transport.flying[ORIGIN] == 8)
            await w.quiet()
            leased = 0
            for run in hanging:
                [lane] = await w.store.lanes(run.id)
                leased += lane.lease_token is not None
            assert 8 < leased <= 16
            healthy = [await w.run(step=ELSEWHERE) for _ in range(50)]
            for run in healthy:
                await w.say(run, "step", "step")
            await w.until(lambda: len([one for one in transport.sent if one.target.origin == OTHER]) == 100)
            assert len([one for one in transport.sent if one.target.origin == ORIGIN]) == 8
            # Nothing is lost by the wait.
            transport.let_go(ORIGIN)
            await w.until(lambda: len(transport.sent) == 400)
            assert transport.most[ORIGIN] == 8

    asyncio.run(story())


def test_however_many_origins_hang_there_are_lanes_left(tmp_path):
    async def story():
        hanging = [f"http://h{n}.example" for n in range(40)]
        transport = Gate(*hanging)
        async with world(tmp_path, transport, limits=DispatchLimits(lanes=64, per_origin=8)) as w:
            for origin in hanging:
                for _ in range(4):
                    await w.say(await w.run(step=f"{origin}/hook"), "step")
            await w.quiet()
            healthy = [await w.run(step=ELSEWHERE) for _ in range(10)]
            for run in healthy:
                await w.say(run, "step", "step")
            await w.until(lambda: len([one for one in transport.sent if one.target.origin == OTHER]) == 20)
            assert sum(transport.flying.values()) <= 63

    asyncio.run(story())


def test_lanes_that_rest_do_not_take_an_origins_share(tmp_path):
    """A lane is kept for its run's next event, but not while another waits for its place."""

    async def story():
        transport = FakeTransport()
        async with world(tmp_path, transport, limits=DispatchLimits(lanes=16, per_origin=2)) as w:
            made = [await w.run(step=HOOK) for _ in range(60)]
            for run in made:
                await w.say(run, "step")
            await w.until(lambda: len(transport.sent) == 60)
            for run in made:
                await w.say(replace(run, seq=1), "step")
            await w.until(lambda: len(transport.sent) == 120)

    asyncio.run(story())


def test_crew_events_that_wait_do_not_keep_their_steps_from_being_sent(tmp_path):
    """More runs than the origin's share wait with their result for a step that comes behind them all."""

    async def story():
        steps, crews = f"{ORIGIN}/steps", f"{ORIGIN}/crews"
        transport = FakeTransport({steps: [Outcome("status:500", 500)] * 40})
        limits = DispatchLimits(lanes=64, per_origin=2)
        async with world(tmp_path, transport, limits=limits, health=HealthPolicy(failures=99)) as w:
            for _ in range(40):
                await w.say(await w.run(step=steps, crew=crews), "step", "crew")
            await w.until(lambda: count(w, "/steps") == 40)
            for _ in range(8):
                w.clock.advance(SECOND)
                await w.quiet()
            await w.until(lambda: count(w, "/crews") == 40)
            paths = [path for path, _ in w.sent()]
            assert paths.count("/steps") == 80
            assert {
                dict(one.headers)[b"crewcast-pending"]
                for one in transport.sent
                if one.target.path == "/crews"
            } == {b"0"}

    asyncio.run(story())


def test_an_event_that_waited_for_its_origin_gets_an_attempt_before_it_is_given_up(tmp_path):
    async def story():
        policy = RetryPolicy(schedule=(SECOND,), give_up_after=10 * SECOND)
        async with world(tmp_path, FakeTransport({HOOK: [DOWN] * 3}), policy=policy, health=THREE) as w:
            for _ in range(3):
                await w.say(await w.run(step=HOOK), "step")
            await health_of(w, Breaker.OPEN)
            late = await w.run(step=HOOK)
            await w.say(late, "step")
            w.clock.advance(31 * SECOND)
            await w.until(lambda: len(w.transport.sent) == 7)
            await w.quiet()
            assert await w.store.dead_letters(late.id) == []

    asyncio.run(story())
