"""How runs go: hidden at once, removed in slices, never while something is to be delivered."""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from crewcast.core import run as runs
from crewcast.core.errors import StoreError
from crewcast.core.event import Channel
from crewcast.core.lane import Lane, split
from crewcast.core.run import Run, RunState
from crewcast.store.protocol import Created, Hint, IdempotencyKey, Removal, Store
from tests.contract.store.world import (
    ALL,
    BUSY,
    DISPATCHER,
    GONE,
    LEASE,
    NOW,
    SECOND,
    WORKER,
    Heard,
    append,
    claimed,
    delivered,
    ended,
    event,
    held,
    lane,
    new_run,
    queued,
    running,
    settlement,
)

STEP = Channel.STEP
LONG_AFTER = NOW + 10**12


async def done(store: Store, at: int = NOW, *, key: IdempotencyKey | None = None) -> Run:
    """A run that ended at `at`, with attempts, a dead letter, and nothing left to deliver."""
    run = new_run("done")
    await store.create_run(run, [lane(run, 1), lane(run, 2, Channel.TASK)], key, NOW)
    (run,) = await store.claim_runs(["done"], 1, WORKER, NOW, LEASE)
    run = await ended(store, await append(store, run, STEP, STEP), at)
    (mine,) = [one for one in await claimed(store) if one.run_id == run.id]
    written = settlement(mine, event(run, 1), BUSY)
    assert await store.settle(written)
    mine = await delivered(store, replace(written.lane), 1, outcome=BUSY)
    (mine,) = [one for one in await claimed(store) if one.run_id == run.id]
    await delivered(store, mine, 2, 3)
    return run


async def unknown(store: Store, run: Run) -> bool:
    """Whether no verb that reads or acts knows anything of the run."""
    found = [
        await store.run(run.id),
        await store.events(run.id),
        await store.events(run.id, 1, 1),
        await store.last_event(run.id, Channel.CREW),
        await store.lanes(run.id),
        await store.attempts(run.id),
        await store.dead_letters(run.id),
        await store.undelivered(run_id=run.id),
        [one for one in await store.undelivered() if one.run_id == run.id],
        [one for one in await store.undelivered("https://a.example") if one.run_id == run.id],
        [one for one in await store.dead_lanes(None, 0, None, 99) if one.run_id == run.id],
        await store.redeliver(run.id, now=NOW),
        await store.redeliver(run.id, now=NOW, dead_only=True),
        await store.lane_events(lane(run), 9),
        await store.lane_events(replace(lane(run), replay_of=1, dead_only=True, tail=9), 9),
        await store.pending_beside(lane(run, 9)),
        [one for one in await store.running_runs() if one.id == run.id],
        [one for one in await claimed(store, now=LONG_AFTER, token="t") if one.run_id == run.id],
        [one for one in await store.claim_runs([run.crew], 99, "t", NOW, LEASE) if one.id == run.id],
        await store.journal(run.id),
        await store.review(run.id),
        await store.reviews(None, run.id),
        [one for _, one in await store.reviews(None) if one.run_id == run.id],
        await store.request_stop(run.id, "kim"),
        [one for one in await store.stops("t") if one == run.id],
    ]
    return not any(found)


# --- deleting -------------------------------------------------------------------------------


async def test_a_deleted_run_is_unknown_at_once(store: Store):
    run, beside = await done(store), await done(store)
    before = await everything(store, beside)
    heard = Heard(store)
    assert await store.delete_run(run.id) is Removal.HIDDEN
    assert heard.take() == [(Hint.EVENTS, run.id)]
    assert await unknown(store, run)
    assert await store.delete_run(run.id) is Removal.UNKNOWN
    assert await everything(store, beside) == before


async def test_a_run_that_runs_is_not_deleted(store: Store):
    run = await append(store, await running(store, ALL), STEP)
    assert await store.delete_run(run.id) is Removal.RUNNING
    assert await store.delete_run("nonsense") is Removal.UNKNOWN
    assert await store.run(run.id) == run
    await append(store, run, STEP)


async def test_a_queued_run_that_is_deleted_never_runs(store: Store):
    run = await queued(store, ALL)
    assert await store.delete_run(run.id) is Removal.HIDDEN
    assert await unknown(store, run)
    assert await store.claim_runs(["crew"], 9, WORKER, NOW, LEASE) == []


async def test_whoever_holds_a_lane_of_a_deleted_run_settles_nothing_more(store: Store):
    run, mine = await held(store, STEP, STEP)
    await ended(store, run)
    await store.redeliver(run.id, now=NOW)
    (replay,) = await claimed(store)
    assert await store.settle(settlement(mine, event(run, 1)))
    assert await store.delete_run(run.id) is Removal.HIDDEN
    for lane_held in (mine, replay):
        assert not await store.settle(settlement(lane_held, event(run, 2), BUSY))
        assert not await store.settle(settlement(lane_held, event(run, 2), GONE, release=True))
        await store.release_lane(lane_held, NOW)
        await store.park_lanes([lane_held], NOW)
    await store.renew_lanes(DISPATCHER, LONG_AFTER)
    assert await store.next_due() is None
    assert await store.origins() == []
    assert await unknown(store, run)


async def test_an_append_to_a_deleted_run_is_refused(store: Store):
    run = await running(store, ALL)
    waiting = runs.move(replace(run, seq=1), RunState.WAITING)
    assert await store.append(waiting, [event(run, 1)], WORKER)
    assert await store.delete_run(run.id) is Removal.HIDDEN
    assert not await store.append(replace(run, seq=2), [event(run, 2)], WORKER)
    assert not await store.append(run, [], WORKER)
    assert not await store.adopt(run, "new", LONG_AFTER)
    assert await unknown(store, run)


async def test_an_id_is_not_used_again_while_something_of_it_is_there(store: Store):
    run = await done(store)
    await store.delete_run(run.id)
    with pytest.raises(StoreError):
        await store.create_run(replace(new_run(), id=run.id), [], None, NOW)
    await store.sweep(3)
    with pytest.raises(StoreError):
        await store.create_run(replace(new_run(), id=run.id), [], None, NOW)
    assert await unknown(store, run)


async def test_a_key_still_answers_for_a_run_that_was_deleted(store: Store):
    """The retry of a kickoff must not start its run a second time."""
    key = IdempotencyKey("token", "key", b"f")
    run = await done(store, key=key)
    await store.delete_run(run.id)
    while await store.sweep(100):
        pass
    assert await store.create_run(new_run(), [], key, NOW + 1) == Created(run.id, replayed=True)


async def test_a_new_run_has_nothing_of_a_swept_one(store: Store):
    """Whatever numbers the store gives inside: a late write for the old run does not reach the new one."""
    run = await running(store, ALL)
    waiting = runs.move(replace(run, seq=1), RunState.WAITING)
    assert await store.append(waiting, [event(run, 1)], WORKER)
    (mine,) = await claimed(store)
    await store.delete_run(run.id)
    while await store.sweep(100):
        pass
    new = await append(store, await running(store, ALL), STEP)
    (theirs,) = await claimed(store)
    assert theirs.run_id == new.id
    assert not await store.append(replace(run, seq=2), [event(run, 2)], WORKER)
    assert not await store.settle(settlement(mine, event(run, 1)))
    await store.release_lane(mine, NOW)
    assert await store.events(new.id) == [event(new, 1)]
    assert await store.lanes(new.id) == [theirs]
    assert await store.attempts(new.id) == []


# --- expiry ---------------------------------------------------------------------------------


async def test_the_longest_ended_runs_expire_first(store: Store):
    made = [await done(store, NOW + at * SECOND) for at in (3, 1, 2)]
    assert await store.expire(NOW + 1 * SECOND, 9) == []
    assert await store.expire(NOW + 4 * SECOND, 2) == [made[1].id, made[2].id]
    assert await unknown(store, made[1])
    assert await store.run(made[0].id) == made[0]
    assert await store.expire(NOW + 4 * SECOND, 2) == [made[0].id]
    assert await store.expire(LONG_AFTER, 9) == []


async def test_what_has_not_ended_does_not_expire(store: Store):
    await queued(store)
    await running(store)
    waiting = await running(store)
    assert await store.append(runs.move(waiting, RunState.WAITING), [], WORKER)
    assert await store.expire(LONG_AFTER, 9) == []


async def test_a_run_with_something_to_deliver_does_not_expire(store: Store):
    due = await ended(store, await append(store, await running(store, ALL), STEP))
    assert await store.expire(LONG_AFTER, 9) == []
    (mine,) = await claimed(store)
    assert await store.expire(LONG_AFTER, 9) == []
    written = settlement(mine, event(due, 1), BUSY)
    assert await store.settle(replace(written, release=True))
    assert await store.expire(LONG_AFTER, 9) == []
    (mine,) = await claimed(store, now=NOW + 9 * SECOND)
    await delivered(store, mine, 1, 2)
    assert await store.expire(LONG_AFTER, 9) == [due.id]


async def test_a_replay_or_a_split_lane_at_work_keeps_its_run(store: Store):
    replayed = await done(store)
    (replay,) = await store.redeliver(replayed.id, now=NOW, seq=2)
    run = await ended(store, await append(store, await running(store, ALL, ordered=False), STEP))
    (mine,) = [one for one in await claimed(store) if one.run_id == run.id]
    failed = settlement(mine, event(run, 1), BUSY)
    rest, apart = split(mine, event(run, 1), failed.lane)
    assert await store.settle(replace(failed, lane=rest, split=apart))
    await delivered(store, rest, 2)
    assert await store.expire(LONG_AFTER, 9) == []

    (alone,) = await claimed(store, now=NOW + 9 * SECOND)
    await delivered(store, alone, 1)
    assert await store.expire(LONG_AFTER, 9) == [run.id]
    await delivered(store, replace(replay, lease_token=DISPATCHER), 2)
    assert await store.expire(LONG_AFTER, 9) == [replayed.id]


async def test_a_replay_that_is_asked_for_meanwhile_keeps_its_run_or_comes_too_late(store: Store):
    for n in range(20):
        run = await done(store)
        asked = [store.expire(LONG_AFTER, 9), store.redeliver(run.id, now=NOW, seq=2)]
        if n % 2:
            first, second = await asyncio.gather(*asked)
        else:
            second, first = await asyncio.gather(*reversed(asked))
        assert bool(first) != bool(second)
        assert (await store.run(run.id) is None) == bool(first)
        for mine in await claimed(store):
            assert mine.run_id == run.id
            await delivered(store, mine, 2)
        assert await store.expire(LONG_AFTER, 9) == ([] if first else [run.id])


async def test_a_lane_that_was_closed_keeps_nothing(store: Store):
    run, mine = await held(store, STEP, STEP)
    await ended(store, run)
    assert await store.settle(settlement(mine, event(run, 1), GONE, release=True))
    assert await store.expire(LONG_AFTER, 9) == [run.id]


async def test_a_lane_that_lingers_without_work_expires_with_its_run(store: Store):
    run = await ended(store, await running(store, ALL))
    (mine,) = await claimed(store)
    written = settlement(mine, event(run, 1, Channel.CREW))
    assert await store.settle(written)
    assert await store.expire(LONG_AFTER, 9) == [run.id]
    await store.release_lane(written.lane, NOW)
    assert await unknown(store, run)


# --- sweeping -------------------------------------------------------------------------------


async def test_a_sweep_removes_what_is_hidden_and_nothing_else(store: Store):
    gone, kept, live = await done(store), await done(store), await running(store, ALL)
    before = await everything(store, kept)
    await store.delete_run(gone.id)
    assert await store.sweep(0) == 0
    # 3 events, 4 attempts, 1 dead letter, 2 lanes, the kickoff and the run
    assert await store.sweep(1000) == 12
    assert await store.sweep(1000) == 0
    assert await everything(store, kept) == before
    await append(store, live, STEP)
    # Now the id is new again.
    again = replace(new_run(), id=gone.id)
    assert await store.create_run(again, [lane(again)], None, NOW) == Created(gone.id)
    assert await everything(store, again) == (again, [], [lane(again)], [], [])


async def everything(store: Store, run: Run) -> tuple:
    return (
        await store.run(run.id),
        await store.events(run.id),
        await store.lanes(run.id),
        await store.attempts(run.id),
        await store.dead_letters(run.id),
    )


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(slices=st.lists(st.integers(1, 9), min_size=1, max_size=30))
def test_slices_of_any_size_remove_the_same(store: Store, runner, slices):
    async def scenario() -> None:
        gone = [await done(store), await done(store)]
        kept = await done(store)
        before = await everything(store, kept)
        for run in gone:
            assert await store.delete_run(run.id) is Removal.HIDDEN
        removed = 0
        for size in slices:
            part = await store.sweep(size)
            assert part == min(size, 24 - removed)
            removed += part
            assert [await unknown(store, run) for run in gone] == [True, True]
        while part := await store.sweep(5):
            removed += part
        assert removed == 24
        assert await everything(store, kept) == before

    runner.run(scenario())


async def test_attempts_are_numbered_on_after_the_newest_are_swept(store: Store):
    kept, gone = await done(store), await done(store)
    newest = max(number for number, _ in await store.attempts(gone.id))
    await store.delete_run(gone.id)
    while await store.sweep(3):
        pass
    later = await done(store)
    assert min(number for number, _ in await store.attempts(later.id)) > newest
    assert len(await store.attempts(kept.id)) == 4


async def test_deleting_beside_work_harms_no_neighbour(store: Store):
    """Appends, settlements, deletions and slices in the same cycles."""
    gone = [await done(store) for _ in range(8)]
    live = [await append(store, await running(store, ALL), *[STEP] * 9) for _ in range(8)]
    lanes: dict[str, Lane] = {one.run_id: one for one in await claimed(store)}

    async def work(run: Run) -> None:
        mine = lanes[run.id]
        for seq in range(1, 10):
            written = settlement(mine, event(run, seq))
            assert await store.settle(written)
            mine = written.lane
            run = await append(store, run, STEP)

    async def remove(run: Run) -> None:
        assert await store.delete_run(run.id) is Removal.HIDDEN
        while await store.sweep(2):
            pass

    await asyncio.gather(*map(work, live), *map(remove, gone))
    for run in live:
        assert [one.seq for one in await store.events(run.id)] == list(range(1, 19))
        assert [made.seq for _, made in await store.attempts(run.id)] == list(range(1, 10))
    assert all([await unknown(store, run) for run in gone])
