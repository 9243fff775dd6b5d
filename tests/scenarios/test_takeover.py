"""A person decides who hears the rest of a run, while a dispatcher holds the lanes of who heard it before."""

import asyncio

import pytest
from msgspec.structs import replace

from crewcast.contract import webhooks
from crewcast.core import review as reviews
from crewcast.core import run as runs
from crewcast.core import url
from crewcast.core.event import Channel
from crewcast.core.lane import Lane
from crewcast.core.outcome import Outcome
from crewcast.core.review import Decision, How, Review
from crewcast.core.run import Run
from crewcast.dispatch.transport import FakeTransport
from tests.scenarios.world import LEASE, TOKEN, Gate, World, world

ORIGIN = "http://sub.example"
OLD, NEW = f"{ORIGIN}/old", f"{ORIGIN}/new"
OK, DOWN = Outcome("ok", 204), Outcome("status:500", 500)
ALL = Channel(31)


async def handed_over(w: World, run: Run, *links: str) -> Run:
    """The run at work again after a pause, heard by `links` from there on."""
    now = w.clock.now()
    number = 1 + len(await w.store.reviews(None, run.id))
    asked = reviews.ask(Review(run.id, number, "t", 1, "u", "Writer", "A draft.", now))
    told = webhooks.encode(
        webhooks.task_completed(run.id, "t", "completed", now, output="done"), run.id, run.seq + 1, 1, 1 << 20
    )
    waiting = replace(runs.pause(run, now), seq=run.seq + 1)
    assert await w.store.append(waiting, [told], TOKEN, review=asked)
    lanes = [Lane(run.id, 1, link, url.parse(link).origin, ALL) for link in links]
    done = reviews.decide(asked, Decision(True, "", "kim", How.API), now)
    assert await w.store.decide(done, waiting, runs.resume(waiting), [], lanes)
    [run] = await w.store.claim_runs(["crew"], 1, TOKEN, now, LEASE)
    return run


def of(w: World, path: str) -> list[str]:
    return [numbers for sent_path, numbers in w.sent() if sent_path == path]


@pytest.mark.parametrize("ordered", [True, False])
def test_each_url_is_sent_what_it_heard_and_nothing_else(tmp_path, ordered):
    async def story():
        async with world(tmp_path, FakeTransport()) as w:
            run = await w.run(step=OLD, task=OLD, crew=OLD, ordered=ordered)
            run = await w.say(run, "step", "step")
            await w.until(lambda: len(of(w, "/old")) == 2)
            await w.quiet()  # the lane rests with its dispatcher
            run = await handed_over(w, run, NEW)  # 3
            run = await w.say(run, "step", "task")  # 4, 5
            run = await handed_over(w, run, OLD, NEW)  # 6
            run = await w.say(run, "step")  # 7
            run = await handed_over(w, run, NEW)  # 8
            await w.say(run, "crew")  # 9
            await w.until(lambda: len(w.sent()) == 11)
            await w.quiet()
            assert of(w, "/old") == ["1/1/1", "2/2/1", "3/3/1", "7/4/1", "8/5/1"]
            assert of(w, "/new") == ["4/1/1", "5/2/1", "6/3/1", "7/4/1", "8/5/1", "9/6/1"]
            lanes = await w.lanes(run, lambda lanes: all(one.settled == one.total for one in lanes))
            assert [one.total for one in lanes] == [5, 6]

    asyncio.run(story())


def test_what_is_in_flight_and_what_waits_is_still_sent_to_who_heard_it(tmp_path):
    async def story():
        async with world(tmp_path, Gate(OLD, script={OLD: [OK, DOWN]})) as w:
            run = await w.run(step=OLD, task=OLD, crew=OLD)
            run = await w.say(run, "step", "step")
            await w.until(lambda: len(of(w, "/old")) == 1)
            run = await handed_over(w, run)  # 3, and nobody hears the rest
            await w.say(run, "step", "crew")
            w.transport.let_go(OLD)
            await w.until(lambda: len(of(w, "/old")) == 2)
            await w.quiet()
            w.clock.advance(10_000_000)
            await w.until(lambda: len(of(w, "/old")) == 4)
            await w.quiet()
            assert of(w, "/old") == ["1/1/1", "2/2/1", "2/2/2", "3/3/1"]
            assert await w.store.dead_letters(run.id) == []

    asyncio.run(story())
