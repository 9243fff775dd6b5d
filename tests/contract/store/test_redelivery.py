"""Redelivery: lanes of their own that send again what there was, and what they change."""

import asyncio

import pytest
from msgspec.structs import replace

from crewcast.core.event import Channel
from crewcast.core.lane import Lane, split
from crewcast.core.run import Run
from crewcast.store.protocol import Hint, Settlement, Store
from tests.contract.store.world import (
    ALL,
    AT_ONCE,
    BUSY,
    DISPATCHER,
    GONE,
    LEASE,
    NOW,
    OK,
    SECOND,
    Heard,
    append,
    claimed,
    delivered,
    ended,
    event,
    held,
    new_run,
    one_lane,
    running,
    sent,
    settlement,
)

STEP, TASK, CREW = Channel.STEP, Channel.TASK, Channel.CREW
LATER = NOW + 5 * SECOND
ELSEWHERE = ("https://b.example/other?key=1", "https://b.example")


async def with_dead(store: Store, events: int, *dead: int) -> tuple[Run, Lane]:
    """A run with so many events, all settled in its one lane, `dead` of them given up."""
    run, mine = await held(store, *[STEP] * events)
    for seq in range(1, events + 1):
        mine = await delivered_one(store, mine, seq, BUSY if seq in dead else OK, last=seq == events)
    return run, await one_lane(store, run)


async def delivered_one(store: Store, mine: Lane, seq: int, outcome=OK, *, last: bool = False) -> Lane:
    after = await delivered(store, mine, seq, outcome=outcome)
    if last:
        return after
    (again,) = await claimed(store)
    return again


def split_off(mine: Lane, run: Run, seq: int) -> Settlement:
    """A failed attempt, after which the event leaves the lane."""
    failed = settlement(mine, event(run, seq), BUSY)
    rest, apart = split(mine, event(run, seq), failed.lane)
    return replace(failed, lane=rest, split=apart)


# --- what is sent again ---------------------------------------------------------------------


async def test_a_whole_lane_is_sent_again_from_its_first_event_with_its_numbers(store: Store):
    run = await append(store, await running(store, STEP, auth=b"sealed"), TASK, STEP, TASK, STEP, TASK)
    (mine,) = await claimed(store)
    await delivered(store, mine, 2, 4)
    before = await one_lane(store, run)

    (made,) = await store.redeliver(run.id, now=LATER, lane=1)

    assert made == Lane(
        run.id,
        2,
        before.url,
        before.origin,
        STEP,
        cursor=0,
        tail=4,
        settled=0,
        due_at=LATER,
        replay_of=1,
        auth=b"sealed",
        total=2,
        asked_at=LATER,
    )
    assert await store.lanes(run.id) == [before, made]
    assert await sent(store, made) == [(1, 2), (2, 4)]
    assert await claimed(store, now=LATER - 1) == []
    assert await claimed(store, now=LATER) == [
        replace(made, lease_token=DISPATCHER, lease_until=LATER + LEASE)
    ]


async def test_one_event_keeps_the_number_that_it_has_in_its_lane(store: Store):
    run = await append(store, await running(store, STEP | CREW, ALL), TASK, STEP, TASK, STEP, STEP)
    first, second = await store.redeliver(run.id, now=NOW, seq=4)
    assert [(one.number, one.replay_of, one.total - one.settled) for one in (first, second)] == [
        (3, 1, 1),
        (4, 2, 1),
    ]
    assert (await sent(store, first), await sent(store, second)) == ([(2, 4)], [(4, 4)])
    (only,) = await store.redeliver(run.id, now=NOW, lane=2, seq=1)
    assert (only.number, only.cursor, only.tail) == (5, 0, 1)
    assert await store.redeliver(run.id, now=NOW, lane=1, seq=1) == []  # a task: not its channel


async def test_a_whole_run_is_sent_again_by_a_lane_for_each_that_has_events(store: Store):
    run = await append(store, await running(store, ALL, TASK, CREW), TASK, STEP)
    made = await store.redeliver(run.id, now=NOW)
    assert [(one.number, one.replay_of, one.total) for one in made] == [(4, 1, 2), (5, 2, 1)]
    # Replays are not replayed, neither by number nor with the run.
    assert await store.redeliver(run.id, now=NOW, lane=4) == []
    again = await store.redeliver(run.id, now=NOW)
    assert [(one.number, one.replay_of) for one in again] == [(6, 1), (7, 2)]


@pytest.mark.parametrize(
    "asked", [{"lane": 9}, {"seq": 9}, {"dead_only": True}, {"lane": 2}, {"seq": 1 << 70}]
)
async def test_where_nothing_is_to_be_sent_nothing_is_created(store: Store, asked):
    run = await append(store, await running(store, ALL, CREW), STEP)
    heard = Heard(store)
    assert await store.redeliver(run.id, now=NOW, **asked) == []
    assert await store.redeliver(new_run().id, now=NOW) == []
    assert len(await store.lanes(run.id)) == 2
    assert heard.take() == []


async def test_who_waits_for_work_is_told(store: Store):
    run = await append(store, await running(store, ALL), STEP)
    heard = Heard(store)
    await store.redeliver(run.id, now=NOW)
    assert heard.take() == [(Hint.EVENTS, run.id)]


async def test_another_url_gets_the_authentication_given_for_it_and_never_the_old_one(store: Store):
    run = await append(store, await running(store, ALL, auth=b"old"), STEP)
    made = [
        await store.redeliver(run.id, now=NOW, target=ELSEWHERE),
        await store.redeliver(run.id, now=NOW, target=ELSEWHERE, auth=b"new"),
        await store.redeliver(run.id, now=NOW, auth=b"changed"),
        await store.redeliver(run.id, now=NOW),
    ]
    own = await one_lane(store, run)
    assert [(one.url, one.origin, one.auth) for (one,) in made] == [
        (*ELSEWHERE, None),
        (*ELSEWHERE, b"new"),
        (own.url, own.origin, b"changed"),
        (own.url, own.origin, b"old"),
    ]
    assert [one.auth for one in await store.lanes(run.id)] == [b"old", None, b"new", b"changed", b"old"]


async def test_a_lane_without_order_is_sent_again_without_order(store: Store):
    run = await append(store, await running(store, ALL, ordered=False), STEP)
    (made,) = await store.redeliver(run.id, now=NOW)
    assert not made.ordered


# --- beside the live lane -------------------------------------------------------------------


async def test_a_replay_of_a_run_at_work_covers_the_log_up_to_now(store: Store):
    run, mine = await held(store, STEP, STEP)
    assert await store.settle(settlement(mine, event(run, 1)))
    (made,) = await store.redeliver(run.id, now=NOW)
    run = await append(store, run, STEP, STEP)
    await ended(store, run)
    live, replay = await store.lanes(run.id)
    assert replay == made
    assert (live.tail, live.total, live.cursor, live.lease_token) == (5, 5, 1, DISPATCHER)
    assert await sent(store, replay) == [(1, 1), (2, 2)]
    assert await sent(store, live) == [(2, 2), (3, 3), (4, 4), (5, 5)]


async def test_a_replay_moves_without_the_live_lane(store: Store):
    run, mine = await held(store, STEP, STEP)
    await store.redeliver(run.id, now=NOW)
    (replay,) = await claimed(store)
    assert replay.replay_of == 1
    assert await store.settle(settlement(replay, event(run, 1)))
    assert await store.settle(settlement(mine, event(run, 1), GONE, release=True))
    live, replay = await store.lanes(run.id)
    assert (live.closed, live.cursor) == ("gone", 1)
    assert (replay.closed, replay.cursor, replay.lease_token) == (None, 1, DISPATCHER)


async def test_a_lane_that_is_closed_is_sent_again_with_what_it_lost(store: Store):
    run, mine = await held(store, STEP, STEP)
    assert await store.settle(settlement(mine, event(run, 1), GONE, release=True))
    run = await append(store, run, STEP)
    (made,) = await store.redeliver(run.id, now=NOW)
    assert made.closed is None
    assert await sent(store, made) == [(1, 1), (2, 2), (3, 3)]
    (lost,) = await store.redeliver(run.id, now=NOW, dead_only=True)
    assert await sent(store, lost) == [(1, 1), (2, 2), (3, 3)]


async def test_a_live_crew_event_does_not_wait_for_replays(store: Store):
    run, mine = await held(store, STEP, CREW)
    await store.redeliver(run.id, now=NOW)
    assert await store.pending_beside(mine) == 0


async def test_replays_asked_for_at_once_are_lanes_of_their_own(store: Store):
    run = await append(store, await running(store, ALL, STEP), STEP)
    made = await asyncio.gather(*(store.redeliver(run.id, now=NOW) for _ in range(20)))
    numbers = [one.number for lanes in made for one in lanes]
    assert sorted(numbers) == list(range(3, 43))


# --- dead letters ---------------------------------------------------------------------------


async def test_dead_letters_alone_are_sent_again_with_their_numbers(store: Store):
    run, _ = await with_dead(store, 6, 2, 3, 5)
    (made,) = await store.redeliver(run.id, now=NOW, dead_only=True)
    assert (made.dead_only, made.cursor, made.tail, made.total) == (True, 1, 5, 3)
    assert await sent(store, made) == [(2, 2), (3, 3), (5, 5)]
    (replay,) = await claimed(store)
    replay = await delivered(store, replay, 2, 3)
    assert await sent(store, replay) == [(5, 5)]
    assert await store.lane_events(replay, 0) == []


async def test_one_dead_letter_is_sent_again_alone(store: Store):
    run, _ = await with_dead(store, 4, 2, 3)
    assert await store.redeliver(run.id, now=NOW, seq=1, dead_only=True) == []
    (made,) = await store.redeliver(run.id, now=NOW, seq=3, dead_only=True)
    assert await sent(store, made) == [(3, 3)]
    assert made.total - made.settled == 1


async def dead_at_three_times(store: Store) -> tuple[Run, Lane]:
    """A run whose one lane gave up 2 now, 4 a second later and 5 two seconds later."""
    run, mine = await held(store, *[STEP] * 6)
    for seq in range(1, 7):
        outcome, at = {2: (BUSY, NOW), 4: (BUSY, NOW + SECOND), 5: (BUSY, NOW + 2 * SECOND)}.get(
            seq, (OK, NOW)
        )
        mine = await delivered(store, mine, seq, outcome=outcome, now=at)
        if seq < 6:
            (mine,) = await claimed(store, now=LATER)
    return run, await one_lane(store, run)


@pytest.mark.parametrize(
    ("since", "seqs"), [(0, [2, 4, 5]), (1, [4, 5]), (SECOND, [4, 5]), (SECOND + 1, [5]), (3 * SECOND, [])]
)
async def test_of_dead_letters_those_since_a_moment_are_sent_again(store: Store, since, seqs):
    run, mine = await dead_at_three_times(store)
    found = await store.dead_lanes(mine.origin, NOW + since, None, 9)
    assert [one.count for one in found] == [len(seqs)] * bool(seqs)
    made = await store.redeliver(run.id, now=LATER, dead_only=True, since=NOW + since)
    if not seqs:
        assert made == []
        return
    (lane,) = made
    assert (lane.cursor, lane.tail, lane.total - lane.settled) == (seqs[0] - 1, seqs[-1], len(seqs))
    assert await sent(store, lane) == [(seq, seq) for seq in seqs]
    (replay,) = await claimed(store, now=LATER)
    replay = await delivered(store, replay, *seqs)
    assert (replay.cursor, replay.settled) == (replay.tail, replay.total)
    left = [dead.seq for dead in await store.undelivered()]
    assert left == [seq for seq in (2, 4, 5) if seq not in seqs]


async def test_one_dead_letter_is_sent_again_only_if_it_was_given_up_since(store: Store):
    run, _ = await dead_at_three_times(store)
    assert await store.redeliver(run.id, now=LATER, seq=2, dead_only=True, since=NOW + SECOND) == []
    (made,) = await store.redeliver(run.id, now=LATER, seq=4, dead_only=True, since=NOW + SECOND)
    assert await sent(store, made) == [(4, 4)]
    (whole,) = await store.redeliver(run.id, now=LATER, since=NOW + SECOND)  # not asked for dead letters
    assert (whole.total, len(await sent(store, whole))) == (6, 6)


async def dead_out_of_order(store: Store) -> Run:
    """A run without order that gave up 2 now, 3 a second later and 1 nine seconds later."""
    run = await append(store, await running(store, ALL, ordered=False), STEP, STEP, STEP)
    (mine,) = await claimed(store)
    for seq in (1, 2):
        failed = split_off(mine, run, seq)
        assert await store.settle(failed)
        mine = failed.lane
    await delivered(store, mine, 3, outcome=BUSY, now=NOW + SECOND)
    first, second = await claimed(store, now=NOW + 9 * SECOND)
    await delivered(store, second, 2, outcome=BUSY, now=NOW)
    await delivered(store, first, 1, outcome=BUSY, now=NOW + 9 * SECOND)
    return run


async def test_what_was_given_up_before_the_moment_is_passed_over_between_what_was_given_up_since(
    store: Store,
):
    run = await dead_out_of_order(store)
    (made,) = await store.redeliver(run.id, now=LATER, dead_only=True, since=NOW + SECOND)
    assert made.total == 2
    assert await sent(store, made) == [(1, 1), (3, 3)]
    (replay,) = await claimed(store, now=LATER)
    failed = split_off(replay, run, 1)
    assert await store.settle(failed)
    alone = (await store.lanes(run.id))[-1]
    assert alone.split_of == made.number
    assert (await sent(store, alone), await sent(store, failed.lane)) == ([(1, 1)], [(3, 3)])


async def test_a_replay_since_a_moment_that_is_refused_for_good_gives_up_no_more(store: Store):
    run = await dead_out_of_order(store)
    (made,) = await store.redeliver(run.id, now=LATER, dead_only=True, since=NOW + SECOND)
    (replay,) = await claimed(store, now=LATER)
    assert await store.settle(settlement(replay, event(run, 1), GONE, release=True))
    found = await store.dead_letters(run.id)
    assert [dead.seq for dead in found if dead.lane == made.number] == [1, 3]


async def test_an_accepted_replay_marks_the_dead_letter_redelivered(store: Store):
    run, _ = await with_dead(store, 3, 1, 3)
    assert [dead.redelivered for dead in await store.dead_letters(run.id)] == [False, False]
    await store.redeliver(run.id, now=NOW)
    (replay,) = await claimed(store)
    await delivered(store, replay, 1, 2)
    assert [(dead.seq, dead.redelivered) for dead in await store.dead_letters(run.id)] == [
        (1, True),
        (3, False),
    ]
    assert [dead.seq for dead in await store.undelivered()] == [3]


async def test_what_was_redelivered_is_not_sent_again_with_the_dead_letters(store: Store):
    run, _ = await with_dead(store, 4, 1, 2, 3)
    await store.redeliver(run.id, now=NOW, seq=2)
    (replay,) = await claimed(store)
    await delivered(store, replay, 2)
    (made,) = await store.redeliver(run.id, now=NOW, dead_only=True)
    assert await sent(store, made) == [(1, 1), (3, 3)]
    assert made.total == 2
    (replay,) = await claimed(store)
    await delivered(store, replay, 1, 3)
    assert await store.redeliver(run.id, now=NOW, dead_only=True) == []


async def test_what_a_replay_sends_is_decided_when_it_is_asked_for(store: Store):
    """Or a lane could be left with work that nobody finds."""
    run, _ = await with_dead(store, 4, 1, 3)
    (first,) = await store.redeliver(run.id, now=NOW, dead_only=True)
    (second,) = await store.redeliver(run.id, now=NOW, dead_only=True)
    replays = {one.number: one for one in await claimed(store)}
    await delivered(store, replays[second.number], 1, 3)
    assert await sent(store, first) == [(1, 1), (3, 3)]
    assert await store.redeliver(run.id, now=NOW, dead_only=True) == []


async def test_a_replay_that_fails_leaves_its_own_dead_letters_with_the_numbers_of_the_lane(store: Store):
    run, _ = await with_dead(store, 5, 2, 5)
    await store.redeliver(run.id, now=NOW, dead_only=True)
    (replay,) = await claimed(store)
    await delivered(store, replay, 2, 5, outcome=BUSY, now=LATER)
    found = await store.dead_letters(run.id)
    assert [(dead.lane, dead.seq, dead.lane_seq, dead.at) for dead in found] == [
        (1, 2, 2, NOW),
        (2, 2, 2, LATER),
        (1, 5, 5, NOW),
        (2, 5, 5, LATER),
    ]
    # The next replay delivers: all of them are.
    await store.redeliver(run.id, now=NOW, dead_only=True)
    (replay,) = await claimed(store)
    await delivered(store, replay, 2, 5)
    assert {dead.redelivered for dead in await store.dead_letters(run.id)} == {True}


async def test_a_replay_that_is_refused_for_good_gives_up_its_own_rest_and_no_more(store: Store):
    run, _ = await with_dead(store, 6, 2, 4, 5)
    (replay,) = await store.redeliver(run.id, now=NOW, dead_only=True)
    (replay,) = await claimed(store)
    assert await store.settle(settlement(replay, event(run, 2), GONE, release=True))
    run = await append(store, run, STEP)
    mine = [(dead.seq, dead.lane_seq) for dead in await store.dead_letters(run.id) if dead.lane == 2]
    assert mine == [(2, 2), (4, 4), (5, 5)]
    (other,) = await store.redeliver(run.id, now=NOW, lane=1)
    found = {one.number: one for one in await claimed(store)}
    assert await store.settle(settlement(found[other.number], event(run, 1), GONE, release=True))
    run = await append(store, run, STEP)
    theirs = [dead.seq for dead in await store.dead_letters(run.id) if dead.lane == other.number]
    assert theirs == [1, 2, 3, 4, 5, 6, 7]


async def test_a_replay_that_is_refused_for_good_gives_up_only_what_it_was_to_send(store: Store):
    """Not what was redelivered before it was asked for, nor what the log got since."""
    run, _ = await with_dead(store, 5, 1, 3, 5)
    await store.redeliver(run.id, now=NOW, seq=3)
    (replay,) = await claimed(store)
    await delivered(store, replay, 3)
    (made,) = await store.redeliver(run.id, now=NOW, dead_only=True)
    (whole,) = await store.redeliver(run.id, now=NOW)
    run = await append(store, run, STEP)
    for mine in await claimed(store):
        if mine.replay_of is not None:
            assert await store.settle(settlement(mine, event(run, 1), GONE, release=True))
    found = await store.dead_letters(run.id)
    assert [dead.seq for dead in found if dead.lane == made.number] == [1, 5]
    assert [dead.seq for dead in found if dead.lane == whole.number] == [1, 2, 3, 4, 5]


async def test_numbers_of_dead_letters_are_those_of_the_lane(store: Store):
    run = await append(store, await running(store, STEP), TASK, STEP, TASK, STEP, STEP)
    (mine,) = await claimed(store)
    assert await store.settle(settlement(mine, event(run, 2)))
    after = settlement(mine, event(run, 2)).lane
    assert await store.settle(settlement(after, event(run, 4), GONE, release=True))
    run = await append(store, run, STEP, TASK, STEP)
    assert [(dead.seq, dead.lane_seq) for dead in await store.dead_letters(run.id)] == [
        (4, 2),
        (5, 3),
        (6, 4),
        (8, 5),
    ]
    found = await one_lane(store, run)
    assert (found.total, found.tail) == (5, 8)
    (dead,) = [dead for dead in await store.dead_letters(run.id) if dead.seq == 8]
    assert (dead.url, dead.origin, dead.type, dead.reason) == (mine.url, mine.origin, "step", "gone")


# --- lanes without order --------------------------------------------------------------------


async def test_an_event_that_fails_leaves_a_lane_without_order(store: Store):
    run = await append(store, await running(store, ALL, ordered=False, auth=b"sealed"), STEP, STEP, STEP)
    (mine,) = await claimed(store)
    failed = split_off(mine, run, 1)
    assert await store.settle(failed)
    assert await store.settle(settlement(failed.lane, event(run, 2)))
    live, alone = await store.lanes(run.id)
    assert (live.cursor, live.settled, live.tries, live.lease_token) == (2, 2, 0, DISPATCHER)
    assert failed.split is not None
    assert alone == replace(failed.split, number=2)
    assert (alone.split_of, alone.tries, alone.due_at, alone.auth) == (1, 1, NOW + 9 * SECOND, b"sealed")
    assert await sent(store, alone) == [(1, 1)]
    assert await store.pending_beside(live) == 1
    assert await store.next_due() == NOW + 9 * SECOND
    run = await append(store, run, STEP)
    assert await one_lane(store, run, 2) == alone

    (again,) = await claimed(store, now=NOW + 9 * SECOND)
    assert again.number == 2
    await delivered(store, again, 1)
    assert [(made.lane, made.seq, made.number) for _, made in await store.attempts(run.id)] == [
        (1, 1, 1),
        (1, 2, 1),
        (2, 1, 2),
    ]
    assert await store.redeliver(run.id, now=NOW, lane=2) == []


async def test_what_a_split_lane_gives_up_belongs_to_the_lane_that_it_left(store: Store):
    run = await append(store, await running(store, STEP, ordered=False), TASK, STEP, STEP, STEP)
    (mine,) = await claimed(store)
    for seq in (2, 3):
        failed = split_off(mine, run, seq)
        assert await store.settle(failed)
        mine = failed.lane
    await delivered(store, mine, 4)
    lost, closed = await claimed(store, now=NOW + 9 * SECOND)
    await delivered(store, lost, 2, outcome=BUSY)
    assert await store.settle(settlement(closed, event(run, 3), GONE, release=True))
    assert [
        (dead.lane, dead.seq, dead.lane_seq, dead.reason) for dead in await store.dead_letters(run.id)
    ] == [
        (1, 2, 1, "status:503"),
        (1, 3, 2, "gone"),
    ]
    assert (await one_lane(store, run)).closed is None
    run = await append(store, run, STEP)
    assert len(await store.dead_letters(run.id)) == 2
    (made,) = await store.redeliver(run.id, now=NOW, dead_only=True)
    assert (made.replay_of, made.ordered) == (1, False)
    assert await sent(store, made) == [(1, 2), (2, 3)]


async def test_what_a_split_lane_gives_up_later_is_not_in_a_replay_that_was_asked_for_before(store: Store):
    run = await append(store, await running(store, ALL, ordered=False), STEP, STEP, STEP)
    (mine,) = await claimed(store)
    assert await store.settle(settlement(mine, event(run, 1), BUSY, policy=AT_ONCE))
    mine = settlement(mine, event(run, 1), BUSY, policy=AT_ONCE).lane
    failed = split_off(mine, run, 2)
    assert await store.settle(failed)
    await delivered(store, failed.lane, 3, outcome=BUSY)
    (made,) = await store.redeliver(run.id, now=LATER + LEASE, dead_only=True)
    (alone,) = await claimed(store, now=NOW + 9 * SECOND)
    await delivered(store, alone, 2, outcome=BUSY)
    assert made.total == 2
    assert await sent(store, made) == [(1, 1), (3, 3)]
    (later,) = await store.redeliver(run.id, now=LATER, dead_only=True)
    assert await sent(store, later) == [(1, 1), (2, 2), (3, 3)]
    (first,) = [one for one in await claimed(store, now=LATER + LEASE) if one.number == made.number]
    assert await store.settle(settlement(first, event(run, 1), GONE, release=True))
    assert [dead.seq for dead in await store.dead_letters(run.id) if dead.lane == made.number] == [1, 3]


async def test_an_event_leaves_a_replay_of_dead_letters_with_its_number(store: Store):
    run = await append(store, await running(store, ALL, ordered=False), STEP, STEP, STEP)
    (mine,) = await claimed(store)
    for n, outcome in ((1, OK), (2, BUSY), (3, BUSY)):
        mine = await delivered_one(store, mine, n, outcome, last=n == 3)
    await store.redeliver(run.id, now=NOW, dead_only=True)
    (replay,) = await claimed(store)
    failed = split_off(replay, run, 2)
    assert await store.settle(failed)
    alone = await one_lane(store, run, 3)
    assert (alone.replay_of, alone.split_of, alone.dead_only) == (1, 2, True)
    assert await sent(store, alone) == [(2, 2)]
    assert await sent(store, failed.lane) == [(3, 3)]
    (again,) = await claimed(store, now=NOW + 9 * SECOND)
    await delivered(store, again, 2)
    assert [(dead.seq, dead.redelivered) for dead in await store.dead_letters(run.id)] == [
        (2, True),
        (3, False),
    ]


async def test_splits_of_one_cycle_get_numbers_of_their_own(store: Store):
    run = await append(store, await running(store, ALL, ordered=False), *[STEP] * 30)
    (mine,) = await claimed(store)
    writing = []
    for seq in range(1, 31):
        failed = split_off(mine, run, seq)
        writing.append(asyncio.ensure_future(store.settle(failed)))
        mine = failed.lane
    assert all(await asyncio.gather(*writing))
    found = await store.lanes(run.id)
    assert [one.number for one in found] == list(range(1, 32))
    assert [one.tail for one in found[1:]] == list(range(1, 31))
    # A refused settlement splits nothing.
    assert not await store.settle(split_off(replace(mine, lease_token="zombie"), run, 30))
    assert len(await store.lanes(run.id)) == 31


# --- undelivered ----------------------------------------------------------------------------


async def test_undelivered_is_what_was_given_up_in_that_order(store: Store):
    places = []
    for n, url in enumerate(("https://a.example/1", "https://b.example/2", "https://a.example/3")):
        run, mine = await held(store, STEP, STEP, url=url)
        await delivered(store, mine, 1, 2, outcome=BUSY, now=NOW + n * SECOND)
        places += [(run.id, 1, 1), (run.id, 1, 2)]

    async def found(**asked) -> list[tuple[str, int, int]]:
        return [(dead.run_id, dead.lane, dead.seq) for dead in await store.undelivered(**asked)]

    assert await found() == places
    assert await found(origin="https://a.example") == places[:2] + places[4:]
    assert await found(origin="https://c.example") == []
    assert await found(run_id=places[2][0]) == places[2:4]
    assert await found(run_id=places[2][0], origin="https://a.example") == []
    assert await found(run_id="nonsense") == []
    assert await found(since=NOW + SECOND) == places[2:]
    assert await found(since=NOW + SECOND, origin="https://a.example") == places[4:]
    assert await found(since=NOW + 3 * SECOND) == []


@pytest.mark.parametrize("asked", [{}, {"origin": "https://a.example"}, {"run": True}])
async def test_undelivered_is_read_in_pages(store: Store, asked):
    run, _ = await with_dead(store, 7, 1, 2, 3, 4, 5, 6, 7)
    if "run" in asked:
        asked = {"run_id": run.id}
    await store.redeliver(run.id, now=NOW, seq=4)
    (replay,) = await claimed(store)
    await delivered(store, replay, 4)
    seqs: list[int] = []
    after, pages = 0, 0
    while page := await store.undelivered(**asked, after=after, limit=4):
        seqs += [dead.seq for dead in page]
        after, pages = page[-1].number, pages + 1
    assert (seqs, pages) == ([1, 2, 3, 5, 6, 7], 2)


async def test_dead_lanes_tell_where_redelivery_finds_something(store: Store):
    expected: list[tuple[str, int, int]] = []
    for n in range(5):
        run = await append(store, await running(store, ALL, STEP), STEP, STEP, STEP)
        for mine in await claimed(store):
            await delivered(store, mine, *range(1, 2 + mine.number), outcome=BUSY, now=NOW + n * SECOND)
        expected += [(run.id, 1, 2), (run.id, 2, 3)]
    other, mine = await held(store, STEP, url="https://b.example/x")
    await delivered(store, mine, 1, outcome=BUSY, now=NOW + 9 * SECOND)

    async def pages(origin: str | None, since: int = 0, limit: int = 3) -> list[tuple[str, int, int]]:
        found: list[tuple[str, int, int]] = []
        after = None
        while page := await store.dead_lanes(origin, since, after, limit):
            assert len(page) <= limit
            found += [(one.run_id, one.lane, one.count) for one in page]
            after = page[-1].place
        return found

    assert await pages("https://a.example") == expected
    assert await pages("https://a.example", limit=100) == expected
    assert await pages("https://a.example", NOW + 3 * SECOND, 1) == expected[6:]
    assert await pages("https://b.example") == [(other.id, 1, 1)]
    assert await pages(None) == [*expected, (other.id, 1, 1)]
    assert await pages("https://c.example") == []

    run_id = expected[0][0]
    await store.redeliver(run_id, now=NOW, lane=2, dead_only=True)
    (replay,) = await claimed(store)
    await delivered(store, replay, 1, 2)
    assert (await pages("https://a.example"))[:2] == [(run_id, 1, 2), (run_id, 2, 1)]


async def test_dead_letters_of_replays_are_undelivered_and_not_replayed(store: Store):
    run, mine = await held(store, STEP)
    await delivered(store, mine, 1)
    await store.redeliver(run.id, now=NOW, target=ELSEWHERE)
    (replay,) = await claimed(store)
    await delivered(store, replay, 1, outcome=BUSY)
    (dead,) = await store.undelivered(origin=ELSEWHERE[1])
    assert (dead.lane, dead.url, dead.redelivered) == (2, ELSEWHERE[0], False)
    assert await store.dead_lanes(None, 0, None, 9) == []


# --- the loop of a dispatcher ---------------------------------------------------------------


@pytest.mark.parametrize("dead_only", [False, True])
async def test_a_replay_always_ends(store: Store, dead_only):
    run, _ = await with_dead(store, 9, 2, 3, 7)
    (made,) = await store.redeliver(run.id, now=NOW, dead_only=dead_only)
    rounds = 0
    while found := await claimed(store):
        (replay,) = found
        number, one = (await store.lane_events(replay, 1))[0]
        assert number == one.seq
        await delivered(store, replay, one.seq)
        rounds += 1
    assert rounds == made.total == (3 if dead_only else 9)
    ended_lane = await one_lane(store, run, made.number)
    assert (ended_lane.cursor, ended_lane.due_at) == (ended_lane.tail, None)
    assert ended_lane.settled == ended_lane.total
