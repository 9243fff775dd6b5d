"""Redelivery: lanes of their own that send again what the log has."""

import asyncio

import pytest

from crewcast.core.backoff import SECOND, RetryPolicy
from crewcast.core.errors import UsageError
from crewcast.core.outcome import Outcome
from crewcast.dispatch.transport import FakeTransport
from tests.scenarios.world import Gate, headers_of, world

ORIGIN, OTHER = "http://sub.example", "http://other.example"
HOOK = f"{ORIGIN}/hook"
OK, DOWN, REFUSED = Outcome("ok", 204), Outcome("status:500", 500), Outcome("status:404", 404)
ONCE = RetryPolicy(short_schedule=(SECOND,))


def told(sent) -> tuple[str, ...]:
    found = headers_of(sent)
    names = ("webhook-id", "crewcast-lane-seq", "crewcast-delivery-attempt", "crewcast-replay")
    return tuple(found.get(name, "absent") for name in names)


@pytest.mark.parametrize("ordered", [True, False])
def test_a_replay_says_so_and_keeps_ids_and_numbers(tmp_path, ordered):
    async def story():
        async with world(tmp_path, FakeTransport()) as w:
            run = await w.run(step=HOOK, ordered=ordered)
            await w.say(run, "step", "task", "step", "crew")
            await w.lanes(run, lambda lanes: lanes[0].settled == 2)
            first = list(w.transport.sent)
            assert [told(one)[3] for one in first] == ["absent", "absent"]
            [replay] = await w.store.redeliver(run.id, now=w.clock.now())
            lanes = await w.lanes(run, lambda lanes: lanes[1].cursor == lanes[1].tail)
            again = w.transport.sent[2:]
            assert [told(one) for one in again] == [(*told(one)[:3], "true") for one in first]
            assert [one.body for one in again] == [one.body for one in first]
            await w.lanes(run, lambda lanes: lanes[1].lease_token is None)
            assert (lanes[0].cursor, lanes[0].settled, replay.number) == (3, 2, 2)

    asyncio.run(story())


@pytest.mark.parametrize("ordered", [True, False])
def test_a_replay_of_dead_letters_fills_the_gaps(tmp_path, ordered):
    async def story():
        # The second and the fourth are refused twice: once more than the schedule has.
        answers = {f"{n}": [OK] for n in (1, 3, 5)} | {f"{n}": [REFUSED, REFUSED, DOWN, OK] for n in (2, 4)}

        class BySeq(FakeTransport):
            async def post(self, target, headers, body):
                self.script = {HOOK: ()}
                await super().post(target, headers, body)
                left = answers[dict(headers)[b"crewcast-run-seq"].decode()]
                return left.pop(0)

        async with world(tmp_path, BySeq(), policy=ONCE) as w:
            run = await w.run(step=HOOK, ordered=ordered)
            await w.say(run, *["step"] * 5)
            for _ in range(4):
                await w.quiet()
                w.clock.advance(SECOND)
            assert await w.dead_letters(run, 2) == [(2, "status:404"), (4, "status:404")]
            sent = len(w.transport.sent)
            await w.store.redeliver(run.id, now=w.clock.now(), dead_only=True)
            for _ in range(4):
                await w.quiet()
                w.clock.advance(6 * SECOND)
            await w.quiet()
            again = [told(one)[1:] for one in w.transport.sent[sent:]]
            # The number that each has for the URL; attempts are counted for the new lane.
            tries = [("2", "1", "true"), ("2", "2", "true"), ("4", "1", "true"), ("4", "2", "true")]
            assert again == tries if ordered else sorted(again) == tries
            assert [letter.redelivered for letter in await w.store.dead_letters(run.id)] == [True, True]

    asyncio.run(story())


def test_a_replay_does_not_hold_the_live_lane_up_nor_the_crew_event(tmp_path):
    async def story():
        elsewhere = f"{OTHER}/again"
        transport = Gate(OTHER)
        async with world(tmp_path, transport) as w:
            run = await w.run(step=HOOK, crew=HOOK)
            run = await w.say(run, "step", "step")
            await w.until(lambda: len(transport.sent) == 2)
            await w.store.redeliver(run.id, now=w.clock.now(), target=(elsewhere, OTHER))
            await w.until(lambda: transport.flying[OTHER] == 1)
            await w.say(run, "step", "crew")
            await w.until(lambda: len([one for one in transport.sent if one.target.origin == ORIGIN]) == 4)

    asyncio.run(story())


def test_the_crew_event_of_a_replay_waits_for_nobody(tmp_path):
    async def story():
        steps = f"{ORIGIN}/steps"
        transport = FakeTransport({steps: [DOWN] * 99})
        async with world(tmp_path, transport) as w:
            run = await w.run(step=steps, crew=HOOK)
            await w.say(run, "step", "step", "crew")
            for _ in range(61):
                w.clock.advance(SECOND)
                await w.quiet()
            await w.until(lambda: len([path for path, _ in w.sent() if path == "/hook"]) == 1)
            await w.store.redeliver(run.id, lane=2, now=w.clock.now())
            await w.until(lambda: len([path for path, _ in w.sent() if path == "/hook"]) == 2)
            assert headers_of(w.transport.sent[-1])["crewcast-pending"] == "2"

    asyncio.run(story())


def opened(lane):
    if lane.auth == b"foreign":
        raise UsageError("sealed with another key")
    return [(b"authorization", b"Bearer " + lane.auth)]


def test_a_lane_sends_the_authentication_that_is_sealed_in_it(tmp_path):
    async def story():
        async with world(tmp_path, FakeTransport({HOOK: [DOWN]}), open_auth=opened) as w:
            run = await w.run(step=HOOK, auth=b"one")
            other = await w.run(step=HOOK)
            await w.say(run, "step", "step")
            await w.until(lambda: len(w.transport.sent) == 1)
            await w.quiet()
            w.clock.advance(5 * SECOND)
            await w.until(lambda: len(w.transport.sent) == 3)
            await w.say(other, "step")
            await w.until(lambda: len(w.transport.sent) == 4)
            sent = [headers_of(one).get("authorization") for one in w.transport.sent]
            assert sent == ["Bearer one", "Bearer one", "Bearer one", None]
            await w.quiet()
            await w.store.redeliver(run.id, lane=1, seq=1, now=w.clock.now())
            await w.store.redeliver(run.id, lane=1, seq=1, now=w.clock.now(), target=(f"{OTHER}/x", OTHER))
            await w.until(lambda: len(w.transport.sent) == 6)
            by_origin = {
                one.target.origin: headers_of(one).get("authorization") for one in w.transport.sent[4:]
            }
            assert by_origin == {ORIGIN: "Bearer one", OTHER: None}

    asyncio.run(story())


def test_authentication_that_cannot_be_opened_is_an_outcome_and_nothing_is_sent(tmp_path):
    async def story():
        async with world(tmp_path, FakeTransport(), open_auth=opened) as w:
            run = await w.run(step=HOOK, auth=b"foreign")
            await w.say(run, "step")
            await w.lanes(run, lambda lanes: lanes[0].tries == 1)
            [(_, attempt)] = await w.store.attempts(run.id)
            assert (attempt.outcome.kind, attempt.outcome.detail) == ("sealed", "sealed with another key")
            assert w.transport.sent == []
            assert await w.store.health() == []

    asyncio.run(story())
