"""Journeys of deliveries, with time stepped by hand."""

import asyncio
import gc

import pytest

from crewcast.core.backoff import MINUTE, SECOND, RetryPolicy
from crewcast.core.errors import StoreFull
from crewcast.core.outcome import Outcome
from crewcast.dispatch.dispatcher import DispatchLimits
from crewcast.dispatch.transport import FakeTransport
from crewcast.store.protocol import Removal
from tests.scenarios.world import Gate, world

ORIGIN = "http://sub.example"
HOOK, OTHER = f"{ORIGIN}/hook", f"{ORIGIN}/other"
OK, DOWN, GONE = Outcome("ok", 204), Outcome("status:503", 503), Outcome("status:410", 410)


def test_a_retry_holds_its_lane_back_and_keeps_the_order(tmp_path):
    async def story():
        async with world(tmp_path, FakeTransport({HOOK: [OK, DOWN, Outcome("refused")]})) as w:
            run = await w.run(step=HOOK)
            await w.say(run, "step", "step", "step")
            await w.until(lambda: len(w.transport.sent) == 2)
            await w.quiet()
            assert w.sent() == [("/hook", "1/1/1"), ("/hook", "2/2/1")]
            w.clock.advance(5 * SECOND - 1)
            await w.quiet()
            assert len(w.sent()) == 2
            w.clock.advance(1)
            await w.until(lambda: len(w.transport.sent) == 3)
            w.clock.advance(5 * MINUTE)
            await w.until(lambda: len(w.transport.sent) == 5)
            assert w.sent()[2:] == [("/hook", "2/2/2"), ("/hook", "2/2/3"), ("/hook", "3/3/1")]

    asyncio.run(story())


def test_one_lane_that_waits_does_not_hold_another(tmp_path):
    async def story():
        async with world(tmp_path, FakeTransport({HOOK: [DOWN] * 9})) as w:
            run = await w.run(step=HOOK, task=OTHER)
            await w.say(run, "step", "task", "step", "task")
            await w.until(lambda: len([path for path, _ in w.sent() if path == "/other"]) == 2)
            assert [numbers for path, numbers in w.sent() if path == "/other"] == ["2/1/1", "4/2/1"]

    asyncio.run(story())


def test_the_signature_covers_what_was_stored(tmp_path):
    async def story():
        async with world(tmp_path, FakeTransport()) as w:
            run = await w.run(step=HOOK)
            await w.say(run, "step")
            await w.until(lambda: len(w.transport.sent) == 1)
            [event] = await w.store.events(run.id)
            assert w.transport.sent[0].body == event.body

    asyncio.run(story())


def test_what_is_given_up_is_a_dead_letter_and_the_lane_goes_on(tmp_path):
    policy = RetryPolicy(short_schedule=(SECOND,))

    async def story():
        async with world(
            tmp_path, FakeTransport({HOOK: [Outcome("status:404", 404)] * 2}), policy=policy
        ) as w:
            run = await w.run(step=HOOK)
            await w.say(run, "step", "step")
            await w.until(lambda: len(w.transport.sent) == 1)
            await w.quiet()
            w.clock.advance(SECOND)
            await w.until(lambda: len(w.transport.sent) == 3)
            assert w.sent() == [("/hook", "1/1/1"), ("/hook", "1/1/2"), ("/hook", "2/2/1")]
            assert await w.dead_letters(run, 1) == [(1, "status:404")]

    asyncio.run(story())


def test_gone_closes_this_runs_lane_only(tmp_path):
    async def story():
        async with world(tmp_path, FakeTransport({HOOK: [GONE]})) as w:
            run, other = await w.run(step=HOOK, task=OTHER), await w.run(step=HOOK)
            run = await w.say(run, "step", "step", "task")
            await w.until(lambda: len(w.transport.sent) == 2)
            await w.quiet()
            await w.say(run, "step")
            await w.say(other, "step")
            await w.until(lambda: len(w.transport.sent) == 3)
            await w.quiet()
            assert sorted(w.sent()) == [("/hook", "1/1/1"), ("/hook", "1/1/1"), ("/other", "3/1/1")]
            assert await w.dead_letters(run, 3) == [
                (1, "gone"), (2, "gone"), (4, "gone"),
            ]  # fmt: skip

    asyncio.run(story())


def pending_of(sent) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in sent.headers}.get("crewcast-pending", "absent")


def test_the_crew_event_waits_for_the_runs_other_lanes_at_its_origin(tmp_path):
    async def story():
        async with world(tmp_path, FakeTransport({OTHER: [DOWN]})) as w:
            run = await w.run(crew=HOOK, step=OTHER)
            await w.say(run, "step", "step", "crew")
            await w.until(lambda: len(w.transport.sent) == 1)
            await w.quiet()
            assert [path for path, _ in w.sent()] == ["/other"]
            w.clock.advance(5 * SECOND)
            await w.until(lambda: len(w.transport.sent) == 4)
            assert [path for path, _ in w.sent()] == ["/other", "/other", "/other", "/hook"]
            assert pending_of(w.transport.sent[-1]) == "0"

    asyncio.run(story())


def test_the_crew_event_waits_no_longer_than_crew_wait(tmp_path):
    async def story():
        limits = DispatchLimits(crew_wait=60 * SECOND)
        async with world(tmp_path, FakeTransport({OTHER: [DOWN] * 99}), limits=limits) as w:
            run = await w.run(crew=HOOK, step=OTHER)
            await w.say(run, "step", "step", "crew")
            for _ in range(59):
                w.clock.advance(SECOND)
                await w.quiet()
            assert "/hook" not in [path for path, _ in w.sent()]
            w.clock.advance(SECOND)
            await w.until(lambda: "/hook" in [path for path, _ in w.sent()])
            assert pending_of(next(one for one in w.transport.sent if one.target.path == "/hook")) == "2"

    asyncio.run(story())


def test_the_crew_event_does_not_wait_for_other_origins(tmp_path):
    async def story():
        elsewhere = "http://elsewhere.example/x"
        async with world(tmp_path, FakeTransport({elsewhere: [DOWN] * 9})) as w:
            run = await w.run(crew=HOOK, step=elsewhere)
            await w.say(run, "step", "crew")
            await w.until(lambda: "/hook" in [path for path, _ in w.sent()])

    asyncio.run(story())


class Holding(FakeTransport):
    """Answers only when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()

    async def post(self, target, headers, body):
        outcome = await super().post(target, headers, body)
        await self.go.wait()
        return outcome


def test_one_event_of_a_lane_is_in_flight_and_stop_lets_it_end(tmp_path):
    async def story():
        from crewcast.clock import ManualClock
        from crewcast.dispatch.dispatcher import Dispatcher
        from crewcast.store.sqlite import SQLiteStore
        from tests.scenarios.world import World, signatures

        store, transport, clock = await SQLiteStore.open(tmp_path), Holding(), ManualClock()
        dispatcher = Dispatcher(store, transport, signatures, clock, lambda: 0.5)
        working = asyncio.create_task(dispatcher.run())
        w = World(store, transport, clock)
        run = await w.run(step=HOOK)
        await w.say(run, "step", "step", "step")
        await w.until(lambda: len(transport.sent) == 1)
        await w.quiet()
        assert len(transport.sent) == 1
        stopping = asyncio.create_task(dispatcher.stop(60 * SECOND))
        await w.quiet()
        assert not stopping.done()
        transport.go.set()
        await stopping
        assert len(transport.sent) == 1
        [lane] = await store.lanes(run.id)
        assert (lane.cursor, lane.lease_token) == (1, None)
        assert lane.due_at is not None
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        await store.close()

    asyncio.run(story())


@pytest.mark.parametrize("events", [1, 200])
def test_a_lane_is_read_in_pages(tmp_path, events):
    async def story():
        async with world(tmp_path, FakeTransport()) as w:
            run = await w.run(step=HOOK)
            await w.say(run, *["step"] * events)
            await w.until(lambda: len(w.transport.sent) == events)
            assert w.sent() == [("/hook", f"{n}/{n}/1") for n in range(1, events + 1)]

    asyncio.run(story())


def test_a_full_disk_loses_nothing_and_is_survived_without_a_restart(tmp_path, caplog):
    """What was sent and could not be recorded is sent again, with its id, once there is room."""

    async def story():
        transport = Holding()
        async with world(tmp_path, transport) as w:
            run = await w.run(step=HOOK)
            run = await w.say(run, *["step"] * 400)
            await w.until(lambda: len(transport.sent) == 1)
            writing = w.store._writes.connection
            (pages,) = await asyncio.to_thread(lambda: writing.execute("PRAGMA page_count").fetchone())
            await asyncio.to_thread(
                writing.execute, f"PRAGMA max_page_count = {pages}"
            )  # the disk is full now
            with pytest.raises(StoreFull):
                await w.say(run, *["step"] * 50)
            transport.go.set()
            await w.quiet()
            stuck = len(transport.sent)
            assert stuck < 400
            w.clock.advance(SECOND)
            await w.quiet()
            await asyncio.to_thread(writing.execute, "PRAGMA max_page_count = 1000000")
            run = await w.say(run, "step")
            for _ in range(10):
                w.clock.advance(SECOND)
                await w.quiet()
            numbers = [numbers.rsplit("/", 1)[0] for _, numbers in w.sent()]
            assert list(dict.fromkeys(numbers)) == [f"{n}/{n}" for n in range(1, run.seq + 1)]
            assert len(numbers) > run.seq, "what was not recorded was not sent again"
            assert await w.store.dead_letters(run.id) == []

    asyncio.run(story())
    gc.collect()
    assert "never retrieved" not in caplog.text


def test_a_lane_that_was_lost_is_let_go_of_quietly(tmp_path, caplog):
    """The run is deleted while an event of it is in flight; so it is when another node has taken the lane."""

    async def story():
        transport = Gate(ORIGIN)
        async with world(tmp_path, transport) as w:
            run = await w.run(step=HOOK)
            await w.say(run, *["step"] * 5, "crew")
            await w.until(lambda: len(transport.sent) == 1)
            assert await w.store.delete_run(run.id) is Removal.HIDDEN
            transport.let_go(ORIGIN)
            await w.say(await w.run(step=OTHER), "step")
            await w.until(lambda: w.sent()[-1][0] == "/other")
            await w.quiet()
            await w.dispatcher.stop(60 * SECOND)

    asyncio.run(story())
    assert [record.levelname for record in caplog.records if record.levelname == "ERROR"] == []


def test_lanes_that_come_and_go_again_and_again_are_all_told_of_a_stop(tmp_path):
    """A lane may be given back and claimed again in one commit."""

    async def story():
        async with world(tmp_path, FakeTransport(), limits=DispatchLimits(lanes=4, per_origin=1)) as w:
            made = [await w.run(step=HOOK) for _ in range(20)]
            for _ in range(5):
                made = await asyncio.gather(*(w.say(run, "step", "step") for run in made))
            await w.until(lambda: len(w.transport.sent) == 200)
            await w.dispatcher.stop(60 * SECOND)
            for run in made:
                [lane] = await w.lanes(run, lambda lanes: lanes[0].lease_token is None)
                assert lane.cursor == 10

    asyncio.run(story())


def test_a_lane_that_comes_again_before_it_has_left_is_not_forgotten(tmp_path, caplog):
    """One commit may give it back and to us again, as its run went on meanwhile."""

    async def story():
        async with world(tmp_path, FakeTransport()) as w:
            run = await w.run(step=HOOK)
            run = await w.say(run, "step")
            await w.until(lambda: len(w.transport.sent) == 1)
            release, releasing, released = w.store.release_lane, asyncio.Event(), asyncio.Event()

            async def slowly(lane, now):
                w.store.release_lane = release
                releasing.set()
                await w.say(run, "step")
                await release(lane, now)
                while len(w.transport.sent) < 2:
                    w.clock.advance(SECOND)
                    await w.quiet()
                released.set()

            w.store.release_lane = slowly
            while not releasing.is_set():
                w.clock.advance(SECOND)
                await asyncio.sleep(0.005)
            await w.until(released.is_set)  # without more time, or the lane would be given back again
            await w.quiet()
            assert w.dispatcher.lanes_held == 1
            await w.dispatcher.stop(60 * SECOND)
            assert w.dispatcher.lanes_held == 0

    asyncio.run(story())
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []
