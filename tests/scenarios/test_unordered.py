"""Kickoffs with `"ordering": "none"`: several events of a URL in flight, and none waits for one that failed."""

import asyncio

import pytest

from crewcast.core.backoff import MINUTE, SECOND, RetryPolicy
from crewcast.core.outcome import Outcome
from crewcast.dispatch.transport import FakeTransport
from tests.scenarios.world import Gate, headers_of, world

ORIGIN = "http://sub.example"
HOOK, OTHER = f"{ORIGIN}/hook", f"{ORIGIN}/other"
OK, DOWN = Outcome("ok", 204), Outcome("status:500", 500)


def test_sixteen_events_are_in_flight_and_no_more(tmp_path):
    async def story():
        transport = Gate(ORIGIN)
        async with world(tmp_path, transport) as w:
            run = await w.run(step=HOOK, ordered=False)
            await w.say(run, *["step"] * 40)
            await w.until(lambda: transport.flying[ORIGIN] == 16)
            await w.quiet()
            assert len(transport.sent) == 16
            transport.let_go(ORIGIN)
            await w.lanes(run, lambda lanes: lanes[0].cursor == 40)
            assert transport.most[ORIGIN] == 16
            assert sorted(w.sent()) == sorted(("/hook", f"{n}/{n}/1") for n in range(1, 41))

    asyncio.run(story())


def test_events_that_come_while_others_are_in_flight_do_not_wait(tmp_path):
    async def story():
        transport = Gate(ORIGIN)
        async with world(tmp_path, transport) as w:
            run = await w.run(step=HOOK, ordered=False)
            run = await w.say(run, "step")
            await w.until(lambda: len(transport.sent) == 1)
            await w.say(run, "step", "step")
            await w.until(lambda: len(transport.sent) == 3)
            assert transport.flying[ORIGIN] == 3

    asyncio.run(story())


def test_a_failed_event_leaves_on_a_lane_of_its_own_and_nothing_waits_for_it(tmp_path):
    async def story():
        transport = FakeTransport({HOOK: [OK, DOWN, OK, OK, DOWN]})
        async with world(tmp_path, transport) as w:
            run = await w.run(step=HOOK, ordered=False)
            run = await w.say(run, "step", "step", "step")
            await w.lanes(run, lambda lanes: lanes[0].cursor == 3)
            run = await w.say(run, "step")
            lanes = await w.lanes(run, lambda lanes: lanes[0].cursor == 4)
            assert [(lane.number, lane.split_of, lane.cursor, lane.tail, lane.tries) for lane in lanes] == [
                (1, None, 4, 4, 0),
                (2, 1, 1, 2, 1),
            ]
            w.clock.advance(5 * SECOND)
            await w.until(lambda: len(transport.sent) == 5)
            w.clock.advance(5 * MINUTE)
            await w.until(lambda: len(transport.sent) == 6)
            # It keeps its number for the URL and counts its attempts.
            assert w.sent() == [
                ("/hook", numbers) for numbers in ("1/1/1", "2/2/1", "3/3/1", "4/4/1", "2/2/2", "2/2/3")
            ]
            await w.lanes(run, lambda lanes: [lane.cursor for lane in lanes] == [4, 2])

    asyncio.run(story())


def test_one_that_hangs_holds_nobody_up_for_a_while_and_is_settled_in_its_place(tmp_path):
    async def story():
        class First(Gate):
            async def post(self, target, headers, body):
                if not self.sent:
                    return await super().post(target, headers, body)
                self.sent.append(None)
                return OK

        transport = First(ORIGIN, otherwise=OK)
        async with world(tmp_path, transport) as w:
            run = await w.run(step=HOOK, ordered=False)
            await w.say(run, *["step"] * 100)
            await w.until(lambda: len(transport.sent) == 64)
            await w.quiet()
            assert len(transport.sent) == 64, "a crash repeats what is behind it, so that is bounded"
            assert [lane.cursor for lane in await w.store.lanes(run.id)] == [0]
            transport.let_go(ORIGIN)
            await w.lanes(run, lambda lanes: lanes[0].cursor == 100)
            assert len(transport.sent) == 100

    asyncio.run(story())


def test_what_is_given_up_is_a_dead_letter_of_the_lane_that_it_left(tmp_path):
    async def story():
        policy = RetryPolicy(short_schedule=(SECOND,))
        transport = FakeTransport({HOOK: [OK, Outcome("status:404", 404), OK, Outcome("status:404", 404)]})
        async with world(tmp_path, transport, policy=policy) as w:
            run = await w.run(step=HOOK, ordered=False)
            await w.say(run, "step", "step", "step")
            await w.lanes(run, lambda lanes: lanes[0].cursor == 3)
            w.clock.advance(SECOND)
            assert await w.dead_letters(run, 1) == [(2, "status:404")]
            [letter] = await w.store.dead_letters(run.id)
            assert (letter.lane, letter.lane_seq) == (1, 2)

    asyncio.run(story())


def test_the_crew_event_comes_after_the_first_attempts_and_waits_for_nothing_else(tmp_path):
    async def story():
        transport = Gate(HOOK, script={HOOK: [OK, DOWN], OTHER: [DOWN] * 9}, otherwise=OK)
        async with world(tmp_path, transport) as w:
            run = await w.run(step=HOOK, crew=HOOK, task=OTHER, ordered=False)
            await w.say(run, "step", "step", "task", "task", "crew")
            await w.until(lambda: len(transport.sent) == 4)
            await w.quiet()
            assert len(transport.sent) == 4, "the crew event waits for the answers of its own URL"
            # The tasks' retries are lanes of their own by now.
            await w.lanes(run, lambda lanes: len(lanes) == 4)
            transport.let_go(HOOK)
            await w.until(lambda: len(transport.sent) == 5)
            crew = headers_of(transport.sent[-1])
            assert (crew["crewcast-event"], crew["crewcast-lane-seq"]) == ("crew.completed", "3")
            assert crew["crewcast-pending"] == "3", "one step and two tasks are to be tried again"

    asyncio.run(story())


@pytest.mark.parametrize("refused", [1, 3])
def test_gone_closes_an_unordered_lane_too(tmp_path, refused):
    async def story():
        outcomes = [OK] * (refused - 1) + [Outcome("status:410", 410)]
        transport = FakeTransport({HOOK: outcomes}, Outcome("status:410", 410))
        async with world(tmp_path, transport) as w:
            run = await w.run(step=HOOK, ordered=False)
            run = await w.say(run, *["step"] * 6)
            expected = [(n, "gone") for n in range(refused, 7)]
            assert await w.dead_letters(run, len(expected)) == expected
            await w.say(run, "step")
            assert await w.dead_letters(run, len(expected) + 1) == [*expected, (7, "gone")]
            await w.quiet()
            [lane] = await w.store.lanes(run.id)
            assert (lane.closed, lane.lease_token) == ("gone", None)

    asyncio.run(story())


def test_a_stop_lets_what_is_in_flight_end_and_loses_nothing(tmp_path):
    async def story():
        transport = Gate(ORIGIN)
        async with world(tmp_path, transport) as w:
            run = await w.run(step=HOOK, ordered=False)
            await w.say(run, *["step"] * 30)
            await w.until(lambda: transport.flying[ORIGIN] == 16)
            stopping = asyncio.create_task(w.dispatcher.stop(60 * SECOND))
            await w.quiet()
            assert not stopping.done()
            transport.let_go(ORIGIN)
            await stopping
            assert len(transport.sent) == 16
            [lane] = await w.store.lanes(run.id)
            assert (lane.cursor, lane.settled, lane.lease_token) == (16, 16, None)

    asyncio.run(story())


def test_a_lane_without_order_is_read_in_pages(tmp_path):
    async def story():
        async with world(tmp_path, FakeTransport()) as w:
            run = await w.run(step=HOOK, task=OTHER, ordered=False)
            run = await w.say(run, *["step", "task"] * 150)
            await w.lanes(run, lambda lanes: [lane.settled for lane in lanes] == [150, 150])
            for path in ("/hook", "/other"):
                numbers = sorted(int(text.split("/")[1]) for one, text in w.sent() if one == path)
                assert numbers == list(range(1, 151))

    asyncio.run(story())
