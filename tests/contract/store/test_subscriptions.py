"""Subscriptions that change at a decision: who hears what from there on, in order, numbered without gaps."""

import pytest
from msgspec.structs import replace

from crewcast.core import review as reviews
from crewcast.core import run as runs
from crewcast.core.event import Channel
from crewcast.core.lane import Lane, split
from crewcast.core.run import Run
from crewcast.store.protocol import Removal, Store
from tests.contract.store.world import (
    ALL,
    APPROVE,
    BUSY,
    GONE,
    NOW,
    SECOND,
    append,
    claimed,
    decided,
    delivered,
    ended,
    event,
    goes_on,
    lane,
    one_lane,
    paused,
    running,
    sent,
    settlement,
)

TASK, STEP, CREW, HUMAN = Channel.TASK, Channel.STEP, Channel.CREW, Channel.HUMAN_INPUT
A, B, C = (f"https://{name}.example/hook" for name in "abc")


async def begun(store: Store, *channels: Channel, **fields) -> Run:
    """A running run whose only URL, A, hears all, after these events."""
    return await append(store, await running(store, ALL, url=A, **fields), *channels)


async def taken_over(store: Store, run: Run, told: list[Channel], **urls: Channel) -> Run:
    """The run at work again, after a pause that is heard as before, and `told` with the decision, which `urls`
    hear and nobody else.
    """
    number = 1 + len(await store.reviews(None, run.id))
    run, asked = await paused(store, run, number)
    wanted = [lane(run, 1, channels, {"a": A, "b": B, "c": C}[name]) for name, channels in urls.items()]
    return await goes_on(store, await decided(store, run, asked, *told, subscriptions=wanted))


async def of(store: Store, run: Run, url: str) -> Lane:
    (found,) = [one for one in await store.lanes(run.id) if one.url == url and not one.fixed]
    return found


async def waits(store: Store, run: Run, url: str) -> list[tuple[int, int]]:
    """What the URL is still to be sent: number in the lane, number in the run."""
    return await sent(store, await of(store, run, url))


# --- who hears what -------------------------------------------------------------------------


async def test_another_url_takes_over_and_what_was_before_stays_with_the_old_one(store: Store):
    run = await begun(store, STEP, STEP)  # 1, 2; the pause is 3
    run = await taken_over(store, run, [HUMAN], b=ALL)
    run = await append(store, run, STEP)
    assert await waits(store, run, A) == [(1, 1), (2, 2), (3, 3)]
    assert await waits(store, run, B) == [(1, 4), (2, 5)]
    old, new = await of(store, run, A), await of(store, run, B)
    assert (old.number, old.tail, old.total, old.channels) == (1, 3, 3, Channel(0))
    assert (new.number, new.cursor, new.tail, new.total, new.settled) == (2, 3, 5, 2, 0)
    assert sorted(one.url for one in await claimed(store)) == [A, B]
    await delivered(store, await one_lane(store, run, 1), 1, 2, 3)
    await delivered(store, await one_lane(store, run, 2), 4, 5)
    assert await store.next_due() is None


async def test_none_at_all_ends_every_subscription_and_gives_up_nothing(store: Store):
    run = await taken_over(store, await begun(store, STEP), [HUMAN])
    run = await ended(store, await append(store, run, STEP, TASK))
    assert await waits(store, run, A) == [(1, 1), (2, 2)]
    assert await store.dead_letters(run.id) == []
    assert await store.expire(NOW + 1, 9) == []
    (mine,) = await claimed(store)
    await delivered(store, mine, 1, 2)
    assert await store.next_due() is None
    assert await store.expire(NOW + 1, 9) == [run.id]


async def test_without_a_list_every_url_hears_on(store: Store):
    run, asked = await paused(store, await begun(store, STEP))
    run = await decided(store, run, asked, HUMAN)
    assert await waits(store, run, A) == [(1, 1), (2, 2), (3, 3)]
    assert not (await of(store, run, A)).ranged


async def test_the_same_list_changes_nothing(store: Store):
    run, asked = await paused(store, await begun(store, STEP))
    before = await store.lanes(run.id)
    await decided(store, run, asked, subscriptions=[lane(run, 7, ALL, A)])
    assert await store.lanes(run.id) == before


async def test_a_url_that_comes_back_gets_its_lane_back_without_what_it_did_not_hear(store: Store):
    run = await begun(store, STEP)  # the pause is 2
    run = await taken_over(store, run, [], b=ALL)
    run = await append(store, run, STEP)  # 3; the pause is 4
    run = await taken_over(store, run, [], a=ALL)
    run = await append(store, run, STEP)  # 5
    assert await waits(store, run, A) == [(1, 1), (2, 2), (3, 5)]
    assert await waits(store, run, B) == [(1, 3), (2, 4)]
    assert [one.number for one in await store.lanes(run.id)] == [1, 2]
    mine, _ = await claimed(store)
    mine = await delivered(store, mine, 1, 2)
    run = await taken_over(store, run, [], b=ALL)  # 6
    run = await taken_over(store, await append(store, run, STEP), [], a=STEP, b=CREW)  # 7, 8
    run = await append(store, run, TASK, STEP, CREW)  # 9, 10, 11
    assert await waits(store, run, A) == [(3, 5), (4, 6), (5, 10)]
    assert await waits(store, run, B) == [(1, 3), (2, 4), (3, 7), (4, 8), (5, 11)]


async def test_a_url_may_hear_something_else_from_then_on(store: Store):
    run = await begun(store, STEP, TASK)  # the pause is 3
    run = await taken_over(store, run, [HUMAN], a=TASK | HUMAN)
    run = await append(store, run, STEP, TASK)
    assert await waits(store, run, A) == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 6)]
    assert (await of(store, run, A)).total == 5


async def test_changes_at_the_same_place_leave_the_last(store: Store):
    """Two decisions with nothing in the log between them."""
    run = await begun(store, STEP)
    for number, urls in enumerate(([B], [A, B], [C]), 1):
        waiting = runs.pause(run, NOW)
        asked = reviews.ask(reviews.Review(run.id, number, "task", 1, "uuid", "Writer", "", NOW))
        assert await store.append(waiting, [], "worker-1", review=asked)
        wanted = [lane(run, 1, ALL, url) for url in urls]
        run = await goes_on(store, await decided(store, waiting, asked, subscriptions=wanted))
    run = await append(store, run, STEP)
    assert await waits(store, run, A) == [(1, 1)]
    assert await waits(store, run, B) == []
    assert await waits(store, run, C) == [(1, 2)]


async def test_before_any_event_a_url_can_be_replaced(store: Store):
    run = await running(store, ALL, url=A)
    asked = reviews.Review(run.id, 1, "task", 1, "uuid", "Writer", "", NOW)
    waiting = runs.pause(run, NOW)
    assert await store.append(waiting, [], "worker-1", review=asked)
    run = await decided(store, waiting, asked, HUMAN, subscriptions=[lane(run, 1, ALL, B)])
    assert (await waits(store, run, A), await waits(store, run, B)) == ([], [(1, 1)])


async def test_a_decision_that_did_not_hold_changes_no_subscription(store: Store):
    run, asked = await paused(store, await begun(store, STEP))
    after = await decided(store, run, asked, HUMAN)
    before = await store.lanes(run.id)
    late = reviews.decide(asked, APPROVE, NOW)
    assert not await store.decide(late, run, after, [event(run, 3)], [lane(run, 1, ALL, B)])
    assert await store.lanes(run.id) == before


async def test_a_url_is_there_once(store: Store):
    run, asked = await paused(store, await begun(store, STEP))
    done = reviews.decide(asked, APPROVE, NOW)
    twice = [lane(run, 1, TASK, B), lane(run, 2, STEP, B)]
    with pytest.raises(ValueError, match="one subscription for a URL"):
        await store.decide(done, run, runs.resume(run), [], twice)
    assert await store.review(run.id) == asked
    assert await store.run(run.id) == run


async def test_the_authentication_is_the_one_given_last(store: Store):
    run, asked = await paused(store, await begun(store, STEP, auth=b"old"))
    wanted = [
        replace(lane(run, 1, ALL, A), auth=b"new"),
        replace(lane(run, 1, ALL, B), auth=b"b", ordered=False),
    ]
    await decided(store, run, asked, subscriptions=wanted)
    old, new = await of(store, run, A), await of(store, run, B)
    assert (old.auth, old.ordered, old.ranged) == (b"new", True, False)
    assert (new.auth, new.ordered) == (b"b", False)
    (mine,) = await claimed(store)
    assert mine.auth == b"new"


async def test_an_ended_subscription_keeps_its_authentication_for_what_waits(store: Store):
    run, asked = await paused(store, await begun(store, STEP, auth=b"old"))
    await decided(store, run, asked, subscriptions=[])
    (mine,) = await claimed(store)
    assert mine.auth == b"old"


# --- whoever holds a lane meanwhile ---------------------------------------------------------


async def test_a_dispatcher_that_holds_a_lane_is_told_the_right_events(store: Store):
    run = await begun(store, STEP)
    (held,) = await claimed(store)
    run = await taken_over(store, run, [], b=ALL)
    run = await append(store, run, STEP)  # 3; then the pause
    assert await sent(store, held) == [(1, 1), (2, 2)]
    first = settlement(held, event(run, 1))
    assert await store.settle(first)
    run = await taken_over(store, run, [], a=TASK)
    run = await append(store, run, STEP, TASK)  # 5, 6
    assert await sent(store, first.lane) == [(2, 2), (3, 6)]
    for seq in (2, 6):
        first = settlement(first.lane, event(run, seq), release=seq == 6)
        assert await store.settle(first)
    found = await of(store, run, A)
    assert (found.cursor, found.tail, found.settled, found.total, found.due_at) == (6, 6, 3, 3, None)


async def test_an_event_that_leaves_a_lane_is_sent_though_the_lane_hears_it_no_more(store: Store):
    run = await begun(store, STEP, STEP, ordered=False)
    (held,) = await claimed(store)
    run = await taken_over(store, run, [])
    failed = settlement(held, event(run, 1), BUSY)
    rest, apart = split(held, event(run, 1), failed.lane)
    assert await store.settle(replace(failed, lane=rest, split=apart))
    alone = (await store.lanes(run.id))[-1]
    assert (alone.split_of, alone.ranged) == (1, True)
    assert await sent(store, alone) == [(1, 1)]
    assert await sent(store, rest) == [(2, 2), (3, 3)]
    (alone,) = await claimed(store, now=NOW + 9 * SECOND)
    await delivered(store, alone, 1)


async def test_an_event_heard_only_since_leaves_a_lane_held_since_before(store: Store):
    run = await begun(store, TASK, ordered=False)
    run = await taken_over(store, run, [], a=TASK)
    (held,) = await claimed(store)
    run = await taken_over(store, run, [STEP], a=STEP)  # 3, 4
    assert await sent(store, held) == [(1, 1), (2, 2), (3, 3), (4, 4)]
    failed = settlement(held, event(run, 1))
    for seq in (2, 3):
        assert await store.settle(failed)
        failed = settlement(failed.lane, event(run, seq))
    assert await store.settle(failed)
    failed = settlement(failed.lane, event(run, 4), BUSY)
    rest, apart = split(replace(failed.lane, cursor=3, settled=3), event(run, 4), failed.lane)
    assert await store.settle(replace(failed, lane=rest, split=apart))
    assert await sent(store, (await store.lanes(run.id))[-1]) == [(4, 4)]


# --- redelivery -----------------------------------------------------------------------------


async def back_again(store: Store) -> Run:
    """A run whose events 1, 2, 5, 6 belong to A and 3, 4 to B; all are sent."""
    run = await begun(store, STEP)
    run = await taken_over(store, run, [], b=ALL)
    run = await taken_over(store, await append(store, run, STEP), [], a=ALL)
    run = await append(store, run, STEP, STEP)
    for mine in await claimed(store):
        await delivered(store, mine, *[seq for _, seq in await sent(store, mine)])
    return run


async def test_a_replay_sends_what_the_url_heard_with_its_numbers(store: Store):
    run = await back_again(store)
    first, second = await store.redeliver(run.id, now=NOW)
    assert await sent(store, first) == [(1, 1), (2, 2), (3, 5), (4, 6)]
    assert await sent(store, second) == [(1, 3), (2, 4)]
    assert (first.total, second.total) == (4, 2)
    run = await taken_over(store, run, [])
    run = await append(store, run, STEP)
    assert await sent(store, first) == [(1, 1), (2, 2), (3, 5), (4, 6)]
    for mine in await claimed(store):
        if mine.fixed:
            mine = await delivered(store, mine, *[seq for _, seq in await sent(store, mine)])  # noqa: PLW2901
            assert (mine.cursor, mine.settled) == (mine.tail, mine.total)


@pytest.mark.parametrize(("seq", "number"), [(1, 1), (2, 2), (3, None), (4, None), (5, 3), (6, 4), (7, None)])
async def test_one_event_is_sent_again_only_to_who_heard_it(store: Store, seq, number):
    run = await back_again(store)
    made = await store.redeliver(run.id, now=NOW, lane=1, seq=seq)
    assert [await sent(store, one) for one in made] == ([] if number is None else [[(number, seq)]])


async def test_dead_letters_of_a_lane_with_gaps_are_sent_again_with_their_numbers(store: Store):
    run = await begun(store, STEP)
    run = await taken_over(store, run, [], b=ALL)
    run = await taken_over(store, await append(store, run, STEP), [], a=ALL)
    run = await append(store, run, STEP)  # 5
    (mine,) = [one for one in await claimed(store) if one.url == A]
    await delivered(store, mine, 1, 2, 5, outcome=BUSY)
    assert [(one.seq, one.lane_seq) for one in await store.dead_letters(run.id)] == [(1, 1), (2, 2), (5, 3)]
    run = await taken_over(store, run, [])
    (replay,) = await store.redeliver(run.id, now=NOW, dead_only=True)
    assert await sent(store, replay) == [(1, 1), (2, 2), (3, 5)]
    (replay,) = [one for one in await claimed(store) if one.fixed]
    assert await store.settle(settlement(replay, event(run, 1), GONE, release=True))
    buried = [
        (one.seq, one.lane_seq) for one in await store.dead_letters(run.id) if one.lane == replay.number
    ]
    assert buried == [(1, 1), (2, 2), (5, 3)]


async def test_a_subscriber_that_is_gone_has_dead_letters_of_what_it_heard(store: Store):
    run = await begun(store, STEP)
    run = await taken_over(store, run, [], b=ALL)
    run = await taken_over(store, await append(store, run, STEP), [], a=TASK)
    run = await append(store, run, STEP, TASK)  # 5, 6
    (mine,) = [one for one in await claimed(store) if one.url == A]
    assert await store.settle(settlement(mine, event(run, 1), GONE, release=True))
    dead = [(1, 1), (2, 2), (6, 3)]
    assert [(one.seq, one.lane_seq) for one in await store.dead_letters(run.id)] == dead
    run = await append(store, run, STEP, TASK)  # 7, 8; and the pause, 9
    run = await taken_over(store, run, [], b=ALL)
    dead += [(8, 4), (9, 5)]
    assert [(one.seq, one.lane_seq) for one in await store.dead_letters(run.id)] == dead
    run = await append(store, run, TASK)  # 10; the pause is 11
    run = await taken_over(store, run, [], a=ALL)  # closed is closed
    run = await append(store, run, STEP)  # 12
    assert (await of(store, run, A)).closed == "gone"
    dead += [(12, 6)]
    assert [(one.seq, one.lane_seq) for one in await store.dead_letters(run.id)] == dead


async def test_what_waits_at_an_ended_url_is_counted_as_pending(store: Store):
    run = await begun(store, STEP)
    run = await taken_over(store, run, [], b=ALL)
    other = "https://a.example/other"
    run, asked = await paused(store, run, 2)
    await decided(store, run, asked, CREW, subscriptions=[lane(run, 1, ALL, other)])
    assert await store.pending_beside(await of(store, run, other)) == 2


async def test_the_ranges_go_with_their_run(store: Store):
    run = await back_again(store)
    run = await ended(store, run)
    assert await store.delete_run(run.id) is Removal.HIDDEN
    assert await store.lane_events(lane(run), 9) == []
    # 7 events, 6 attempts, 2 lanes, 3 ranges, 2 reviews, the kickoff, the run
    assert await store.sweep(4) == 4
    assert await store.sweep(100) == 18
    assert await store.sweep(100) == 0
