"""Lanes: due when there is work, held by one dispatcher, moved by settlements."""

import asyncio

import pytest
from msgspec.structs import replace

from crewcast.core.backoff import RetryPolicy
from crewcast.core.event import Channel
from crewcast.core.lane import Verdict
from crewcast.store.protocol import DeadLetter, Settlement, Store
from tests.contract.store.world import (
    ALL,
    BUSY,
    DISPATCHER,
    GONE,
    LEASE,
    NOW,
    OK,
    SECOND,
    append,
    attempt,
    claimed,
    event,
    held,
    lane,
    new_run,
    one_lane,
    running,
    settlement,
)

STEP, TASK, CREW = Channel.STEP, Channel.TASK, Channel.CREW


# --- work -----------------------------------------------------------------------------------


async def test_an_append_gives_work_to_the_lanes_that_listen(store: Store):
    run = await running(store, TASK | CREW, STEP, ALL, CREW)
    run = await append(store, run, TASK, STEP, STEP, TASK, at=NOW + 3)
    assert [(one.tail, one.due_at) for one in await store.lanes(run.id)] == [
        (4, NOW + 3),
        (3, NOW + 3),
        (4, NOW + 3),
        (0, None),
    ]
    await append(store, run, CREW, at=NOW + 8)
    assert [(one.tail, one.due_at) for one in await store.lanes(run.id)] == [
        (5, NOW + 3),
        (3, NOW + 3),
        (5, NOW + 3),
        (5, NOW + 8),
    ]


async def test_an_append_does_not_shorten_the_wait_for_a_retry(store: Store):
    run, mine = await held(store, STEP)
    assert await store.settle(settlement(mine, event(run, 1), BUSY, release=True))
    waiting = await one_lane(store, run)
    assert waiting.due_at == NOW + 9 * SECOND
    await append(store, run, STEP)
    assert await one_lane(store, run) == replace(waiting, tail=2, total=2)


# --- claims ---------------------------------------------------------------------------------


async def test_claims_take_the_longest_due_first(store: Store):
    made = [await append(store, await running(store, ALL), STEP, at=NOW + late) for late in (5, 1, 9, 3)]
    assert await store.next_due() == NOW + 1
    first = await claimed(store, 2, NOW + 4)
    assert [one.run_id for one in first] == [made[1].id, made[3].id]
    assert {(one.lease_token, one.lease_until) for one in first} == {(DISPATCHER, NOW + 4 + LEASE)}
    assert first[0] == await one_lane(store, made[1])
    assert await claimed(store, 2, NOW + 4) == []
    assert await store.next_due() == NOW + 5
    assert [one.run_id for one in await claimed(store, 9, NOW + 9)] == [made[0].id, made[2].id]
    assert await store.next_due() is None


async def test_lanes_without_work_are_not_claimed(store: Store):
    await running(store, ALL)
    await append(store, await running(store, TASK), STEP)
    assert await claimed(store) == []
    assert await claimed(store, 0) == []


async def test_no_two_claims_get_the_same_lane(store: Store):
    for _ in range(30):
        await append(store, await running(store, STEP, STEP), STEP)
    claims = await asyncio.gather(*(claimed(store, 7, token=f"dispatcher-{n}") for n in range(12)))
    taken = [(one.run_id, one.number) for claim in claims for one in claim]
    assert len(taken) == len(set(taken)) == 60


async def test_a_lapsed_lease_is_taken_over_and_fences_the_late_one(store: Store):
    run, mine = await held(store, STEP)
    assert await claimed(store, now=NOW + LEASE - 1, token="other") == []
    (theirs,) = await claimed(store, now=NOW + LEASE, token="other")
    assert (theirs.run_id, theirs.lease_token) == (run.id, "other")
    assert not await store.settle(settlement(mine, event(run, 1)))
    assert await store.attempts(run.id) == []
    assert await store.settle(settlement(theirs, event(run, 1)))


async def test_a_lapsed_lease_is_not_given_to_its_own_holder_again(store: Store):
    """It is at work on the lane already, and would send an event twice at once."""
    await held(store, STEP)
    assert await claimed(store, now=NOW + 2 * LEASE) == []


async def test_renewing_prolongs_what_the_token_holds(store: Store):
    run, mine = await held(store, STEP)
    await store.renew_lanes(DISPATCHER, NOW + 2 * LEASE)
    await store.renew_lanes("other", NOW + 9 * LEASE)
    assert await one_lane(store, run) == replace(mine, lease_until=NOW + 2 * LEASE)
    assert await claimed(store, now=NOW + LEASE, token="other") == []


# --- settlements ----------------------------------------------------------------------------


async def test_an_accepted_event_moves_the_cursor_and_keeps_the_lane(store: Store):
    run, mine = await held(store, STEP, TASK)
    written = settlement(mine, event(run, 1), now=NOW + 5)
    assert await store.settle(written)
    found = await one_lane(store, run)
    assert found == replace(written.lane, tail=2, due_at=found.due_at)
    assert [made for _, made in await store.attempts(run.id)] == [written.attempt]
    assert await store.next_due() is None


async def test_the_stored_tail_is_kept(store: Store):
    run, mine = await held(store, STEP)
    run = await append(store, run, STEP, STEP)
    assert await store.settle(settlement(mine, event(run, 1)))
    assert (await one_lane(store, run)).tail == 3


@pytest.mark.parametrize(("events", "due"), [([STEP], None), ([STEP, STEP], NOW + 7)])
async def test_a_released_lane_is_due_if_there_is_work(store: Store, events: list[Channel], due: int | None):
    run, mine = await held(store, *events)
    assert await store.settle(settlement(mine, event(run, 1), release=True, now=NOW + 7))
    found = await one_lane(store, run)
    assert (found.lease_token, found.lease_until, found.due_at) == (None, None, due)
    assert len(await claimed(store, now=NOW + 7)) == (due is not None)


async def test_a_released_lane_without_a_time_is_due_at_once(store: Store):
    run, mine = await held(store, STEP, STEP)
    written = settlement(mine, event(run, 1), release=True)
    assert await store.settle(Settlement(replace(written.lane, due_at=None), written.attempt, release=True))
    assert (await one_lane(store, run)).due_at == NOW


async def test_a_retry_waits(store: Store):
    run, mine = await held(store, STEP)
    written = settlement(mine, event(run, 1), BUSY, release=True)
    assert written.attempt.verdict is Verdict.RETRY
    assert await store.settle(written)
    found = await one_lane(store, run)
    assert (found.cursor, found.tries, found.due_at) == (0, 1, NOW + 9 * SECOND)
    assert await store.next_due() == NOW + 9 * SECOND
    assert await claimed(store, now=NOW + 9 * SECOND - 1) == []
    (again,) = await claimed(store, now=NOW + 9 * SECOND)
    assert again.tries == 1
    assert [made for _, made in await store.attempts(run.id)] == [written.attempt]


async def test_a_given_up_event_is_a_dead_letter_and_the_lane_goes_on(store: Store):
    run, mine = await held(store, STEP, STEP)
    written = settlement(mine, event(run, 1), BUSY, policy=RetryPolicy(give_up_after=0), now=NOW + 2)
    assert written.attempt.verdict is Verdict.GAVE_UP
    assert await store.settle(written)
    (dead,) = await store.dead_letters(run.id)
    assert dead == DeadLetter(
        run.id,
        1,
        1,
        NOW + 2,
        "status:503",
        url=mine.url,
        origin=mine.origin,
        type="step",
        lane_seq=1,
        redelivered=False,
        number=dead.number,
    )
    assert await store.settle(settlement(written.lane, event(run, 2), release=True))
    assert (await one_lane(store, run)).cursor == 2


async def test_a_closed_lane_loses_its_rest_now_and_to_come(store: Store):
    run = await append(store, await running(store, STEP | CREW, ALL), TASK, STEP, STEP, TASK)
    mine, beside = await claimed(store)
    assert await store.settle(settlement(mine, event(run, 2), GONE, release=True, now=NOW + 4))
    assert [(dead.lane, dead.seq, dead.reason) for dead in await store.dead_letters(run.id)] == [
        (1, 2, "gone"),
        (1, 3, "gone"),
    ]
    run = await append(store, run, STEP, TASK, CREW, at=NOW + 6)
    assert [(dead.seq, dead.at) for dead in await store.dead_letters(run.id)] == [
        (2, NOW + 4),
        (3, NOW + 4),
        (5, NOW + 6),
        (7, NOW + 6),
    ]
    found = await one_lane(store, run)
    assert (found.closed, found.due_at, found.lease_token) == ("gone", None, None)
    assert await store.next_due() is None
    assert await claimed(store, now=NOW + LEASE, token="other") == [
        replace(await one_lane(store, run, 2), lease_until=NOW + 2 * LEASE)
    ]
    assert not await store.settle(settlement(mine, event(run, 3)))
    assert beside.number == 2


async def test_a_zombie_settles_nothing(store: Store):
    run, mine = await held(store, STEP)
    before = await one_lane(store, run)
    for token in ("zombie", None):
        stale = replace(mine, lease_token=token)
        assert not await store.settle(settlement(stale, event(run, 1), GONE, release=True))
    unknown = replace(lane(new_run()), lease_token=DISPATCHER)
    assert not await store.settle(settlement(unknown, event(run, 1)))
    assert await one_lane(store, run) == before
    assert await store.attempts(run.id) == []
    assert await store.dead_letters(run.id) == []


async def test_settlements_of_one_lane_at_once_keep_every_attempt(store: Store):
    """The sender does not wait for the commit of an accepted outcome; then it gives the lane back."""
    run, mine = await held(store, *[STEP] * 40)
    writing = []
    for seq in range(1, 41):
        written = settlement(mine, event(run, seq), now=NOW + seq)
        mine = written.lane
        writing.append(asyncio.ensure_future(store.settle(written)))
    giving_back = asyncio.ensure_future(store.release_lane(mine, NOW))
    assert all(await asyncio.gather(*writing))
    await giving_back
    found = await one_lane(store, run)
    assert (found.cursor, found.settled, found.due_at, found.lease_token) == (40, 40, None, None)
    made = await store.attempts(run.id)
    assert [one.seq for _, one in made] == list(range(1, 41))
    assert [one.at for _, one in made] == [NOW + seq for seq in range(1, 41)]


async def test_what_comes_after_a_release_is_refused(store: Store):
    run, mine = await held(store, STEP, STEP)
    first = settlement(mine, event(run, 1), release=True)
    second = settlement(first.lane, event(run, 2))
    writing = [asyncio.ensure_future(store.settle(one)) for one in (first, second)]
    assert await asyncio.gather(*writing) == [True, False]
    assert (await one_lane(store, run)).cursor == 1
    assert len(await store.attempts(run.id)) == 1


async def test_a_refused_settlement_among_many_refuses_itself_alone(store: Store):
    made = [await append(store, await running(store, ALL), STEP) for _ in range(9)]
    lanes = {one.run_id: one for one in await claimed(store)}
    writing = []
    for n, run in enumerate(made):
        mine = lanes[run.id]
        stale = replace(mine, lease_token="zombie") if n == 3 else mine
        writing.append(asyncio.ensure_future(store.settle(settlement(stale, event(run, 1)))))
    assert await asyncio.gather(*writing) == [n != 3 for n in range(9)]
    assert [len(await store.attempts(run.id)) for run in made] == [int(n != 3) for n in range(9)]


async def test_attempts_are_numbered_in_the_order_made(store: Store):
    run = await append(store, await running(store, ALL, STEP), STEP, STEP)
    one, two = await claimed(store)
    for mine, seq in ((one, 1), (two, 1)):
        assert await store.settle(settlement(mine, event(run, seq), BUSY))
    for mine, outcome in ((two, OK), (one, GONE)):
        again = replace(mine, tries=1)
        assert await store.settle(settlement(again, event(run, 1), outcome, release=True))
    made = await store.attempts(run.id)
    assert [(a.lane, a.seq, a.number, a.verdict) for _, a in made] == [
        (1, 1, 1, Verdict.RETRY),
        (2, 1, 1, Verdict.RETRY),
        (2, 1, 2, Verdict.ACCEPTED),
        (1, 1, 2, Verdict.CLOSED),
    ]
    assert made[0][1] == attempt(one, event(run, 1), Verdict.RETRY, BUSY)
    numbers = [number for number, _ in made]
    assert numbers == sorted(set(numbers))
    assert await store.attempts(run.id, after=numbers[1]) == made[2:]
    assert await store.attempts(run.id, after=numbers[0], limit=2) == made[1:3]
    assert await store.attempts(run.id, after=numbers[3]) == []


# --- giving back ----------------------------------------------------------------------------


async def test_a_released_idle_lane_is_due_with_the_next_event(store: Store):
    run, mine = await held(store, STEP)
    written = settlement(mine, event(run, 1))
    assert await store.settle(written)
    await store.release_lane(written.lane, NOW + 5)
    found = await one_lane(store, run)
    assert (found.lease_token, found.due_at) == (None, None)
    await append(store, run, STEP, at=NOW + 8)
    assert await store.next_due() == NOW + 8


async def test_a_lane_released_with_work_stays_due(store: Store):
    run, mine = await held(store, STEP)
    await store.release_lane(mine, NOW + 5)
    found = await one_lane(store, run)
    assert found.lease_token is None
    assert found.due_at is not None
    assert len(await claimed(store, now=NOW + 5)) == 1


async def test_only_the_holder_gives_a_lane_back(store: Store):
    run, mine = await held(store, STEP)
    await store.release_lane(replace(mine, lease_token="zombie"), NOW)
    assert await one_lane(store, run) == mine


# --- beside ---------------------------------------------------------------------------------


async def test_pending_beside_counts_open_lanes_at_the_same_origin(store: Store):
    run = new_run("running")
    urls = ["https://a.example/1", "https://a.example/2", "https://b.example/1", "https://a.example/3"]
    channels = [CREW, STEP | CREW, ALL, TASK]
    lanes = [lane(run, n, c, u) for n, (c, u) in enumerate(zip(channels, urls, strict=True), 1)]
    await store.create_run(run, lanes, None, NOW)
    (run,) = await store.claim_runs(["running"], 1, "worker-1", NOW, LEASE)
    run = await append(store, run, TASK, STEP, STEP, TASK, CREW)
    mine = {one.number: one for one in await claimed(store)}
    assert await store.pending_beside(mine[1]) == 3 + 2
    assert await store.pending_beside(mine[3]) == 0
    assert await store.settle(settlement(mine[2], event(run, 2)))
    assert await store.pending_beside(mine[1]) == 2 + 2
    assert await store.settle(settlement(mine[4], event(run, 1, TASK), GONE, release=True))
    assert await store.pending_beside(mine[1]) == 2


# --- a node that starts ---------------------------------------------------------------------


async def test_a_node_that_starts_voids_every_lease(store: Store):
    working, at_work = await held(store, STEP)
    done, settled = await held(store, STEP)
    assert await store.settle(settlement(settled, event(done, 1)))
    retrying, failed = await held(store, STEP)
    assert await store.settle(settlement(failed, event(retrying, 1), BUSY))
    waiting, refused = await held(store, STEP)
    assert await store.settle(settlement(refused, event(waiting, 1), BUSY, release=True))
    due = await append(store, await running(store, ALL), STEP)

    await store.void_leases(NOW + SECOND)

    assert [one.run_id for one in await claimed(store, now=NOW + SECOND, token="new")] == [
        working.id,
        due.id,
    ]
    assert (await one_lane(store, done)).due_at is None
    assert (await one_lane(store, done)).lease_token is None
    for run in (retrying, waiting):
        assert (await one_lane(store, run)).due_at == NOW + 9 * SECOND
    assert not await store.settle(settlement(at_work, event(working, 1)))
