"""Stops: noted on a run that is at work, heard by who holds it, never lost between two holders."""

import asyncio

from msgspec.structs import replace

from crewcast.core import run as runs
from crewcast.core.event import Channel
from crewcast.core.run import RunState
from crewcast.store.protocol import Hint, Store
from tests.contract.store.world import (
    LEASE,
    NOW,
    WORKER,
    Heard,
    append,
    event,
    paused,
    queued,
    running,
    waiting,
)


async def test_a_stop_of_a_running_run_is_told_to_who_holds_it(store: Store):
    run, other = await running(store), await running(store, worker="other")
    heard = Heard(store)
    assert await store.request_stop(run.id, "kim") == replace(run, stop="kim")
    assert heard.take() == [(Hint.STOP, run.id)]
    assert await store.stops(WORKER) == [run.id]
    assert await store.stops("other") == []
    assert await store.run(run.id) == replace(run, stop="kim")
    assert await store.run(other.id) == other


async def test_the_first_who_asks_is_noted_to_the_end(store: Store):
    run = await running(store)
    await store.request_stop(run.id, "kim")
    assert (await store.request_stop(run.id, "lee") or run).stop == "kim"
    run = await append(store, run, Channel.STEP)
    ended = replace(runs.end(run, RunState.CANCELLED, NOW), seq=2)
    assert await store.append(ended, [event(run, 2, Channel.CREW)], WORKER)
    assert await store.run(run.id) == replace(ended, stop="kim")
    assert await store.stops(WORKER) == []


async def test_of_a_run_that_nobody_works_on_nothing_is_noted(store: Store):
    queue, (wait, _), ended = await queued(store), await waiting(store), await running(store)
    assert await store.append(runs.end(ended, RunState.COMPLETED, NOW), [], WORKER)
    heard = Heard(store)
    for run in (queue, wait, await store.run(ended.id)):
        assert run is not None
        assert await store.request_stop(run.id, "kim") == run
        assert await store.run(run.id) == run
    assert await store.request_stop("nonsense", "kim") is None
    assert heard.take() == []
    assert await store.stops(WORKER) == []


async def test_a_run_that_pauses_meanwhile_is_found_and_concluded(store: Store):
    run = await running(store)
    await store.request_stop(run.id, "kim")
    wait, _ = await paused(store, run)
    assert await store.stops("anybody") == [run.id]
    found = await store.run(run.id)
    assert found == replace(wait, stop="kim")
    assert await store.conclude(found, runs.end(found, RunState.CANCELLED, NOW), [])
    assert await store.stops("anybody") == []
    assert (await store.run(run.id) or run).stop == "kim"


async def test_a_run_that_is_given_back_meanwhile_is_not_begun_again(store: Store):
    run = await running(store)
    await store.request_stop(run.id, "kim")
    assert await store.append(runs.requeue(run, NOW), [], WORKER)
    assert await store.claim_runs(["running"], 9, WORKER, NOW, LEASE) == []
    assert await store.stops("anybody") == [run.id]
    found = await store.run(run.id)
    assert found is not None
    assert await store.conclude(found, runs.end(found, RunState.CANCELLED, NOW), [])


async def test_a_stop_and_an_end_at_once_leave_one_truth(store: Store):
    for n in range(20):
        run = await running(store)
        ended = runs.end(run, RunState.COMPLETED, NOW)
        calls = [store.request_stop(run.id, "kim"), store.append(ended, [], WORKER)]
        await asyncio.gather(*(calls if n % 2 else reversed(calls)))
        found = await store.run(run.id)
        assert found in (ended, replace(ended, stop="kim"))
        assert await store.stops(WORKER) == []
