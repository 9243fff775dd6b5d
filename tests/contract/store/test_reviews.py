"""Reviews: asked with the pause, decided once by whoever comes first, listed, due, gone with their run."""

import asyncio

import pytest
from msgspec.structs import replace

from crewcast.core import review as reviews
from crewcast.core import run as runs
from crewcast.core.errors import StoreError
from crewcast.core.event import Channel
from crewcast.core.lane import Lane
from crewcast.core.review import Default, Review, ReviewState
from crewcast.core.run import Run, RunState
from crewcast.store.protocol import Hint, Removal, Store
from tests.contract.store.world import (
    ALL,
    APPROVE,
    NOW,
    REJECT,
    SECOND,
    WORKER,
    Heard,
    append,
    decided,
    event,
    goes_on,
    one_lane,
    paused,
    question,
    queued,
    running,
    waiting,
)

LONG_AFTER = NOW + 10**13


# --- asking ---------------------------------------------------------------------------------


async def test_a_pause_keeps_the_question_the_event_and_the_journal_together(store: Store):
    run = await append(store, await running(store, ALL), Channel.STEP)
    asked = question(run, expires_at=NOW + 9, default=Default.REJECT, remind_every=4)
    after = replace(runs.pause(run, NOW + 5), seq=2)
    told = event(run, 2, Channel.TASK)
    assert await store.append(after, [told], WORKER, {"pending": b"{}"}, asked)
    assert await store.run(run.id) == after
    assert await store.events(run.id, 1) == [told]
    assert await store.journal(run.id) == {"pending": b"{}"}
    assert await store.review(run.id) == asked
    assert await store.reviews() == [(1, asked)]
    assert (await one_lane(store, run)).tail == 2
    assert await store.running_runs() == []
    assert await store.claim_runs(["running"], 9, WORKER, NOW, 1) == []


async def test_whoever_lost_the_run_asks_nothing(store: Store):
    run = await running(store)
    after = replace(runs.pause(run, NOW), seq=1)
    assert not await store.append(after, [event(run, 1)], "zombie", {"pending": b""}, question(run))
    assert await store.reviews() == []
    assert await store.journal(run.id) == {}


async def test_a_run_that_is_given_back_or_ends_asks_nothing_nor_does_one_for_another(store: Store):
    run, other = await running(store), await running(store)
    after = runs.pause(run, NOW)
    decided_already = reviews.decide(question(run), APPROVE, NOW)
    for moved, asked in [
        (runs.requeue(run, NOW), question(run)),
        (runs.end(run, RunState.FAILED, NOW), question(run)),
        (after, question(other)),
        (after, decided_already),
    ]:
        with pytest.raises(ValueError, match="cannot ask"):
            await store.append(moved, [], WORKER, review=asked)
    assert await store.run(run.id) == run
    assert await store.reviews(None) == []


async def test_a_number_is_given_once(store: Store):
    run, asked = await waiting(store)
    run = await goes_on(store, await decided(store, run, asked))
    after = runs.pause(run, NOW)
    with pytest.raises(StoreError):
        await store.append(after, [], WORKER, review=question(run, 1))
    assert await store.run(run.id) == run
    assert await store.append(after, [], WORKER, review=question(run, 2))


# --- deciding -------------------------------------------------------------------------------


async def test_a_decision_queues_the_run_to_go_on(store: Store):
    run, asked = await waiting(store, ALL)
    heard = Heard(store)
    done = reviews.decide(asked, REJECT, NOW + 5)
    after = replace(runs.resume(run), seq=2)
    told = event(run, 2, Channel.HUMAN_INPUT)
    assert await store.decide(done, run, after, [told])
    assert sorted(heard.take()) == [(Hint.EVENTS, run.id), (Hint.QUEUED, run.id)]
    assert await store.run(run.id) == after
    assert await store.review(run.id) == done
    assert await store.events(run.id, 1) == [told]
    assert (await one_lane(store, run)).tail == 2
    (again,) = await store.claim_runs(["running"], 9, WORKER, NOW + 7, 60)
    assert again == runs.claim(after, WORKER, NOW + 7, 60)
    assert again.attempt == 1
    lost = runs.requeue(again, NOW + 9)
    assert await store.append(lost, [], WORKER)
    (third,) = await store.claim_runs(["running"], 9, WORKER, NOW + 9, 60)
    assert (third.attempt, third.worked) == (2, 2)


async def test_a_decision_holds_once(store: Store):
    run, asked = await waiting(store)
    after = runs.resume(run)
    assert await store.decide(reviews.decide(asked, APPROVE, NOW), run, after, [])
    for decision in (APPROVE, REJECT):
        late = reviews.decide(asked, decision, NOW + 1)
        assert not await store.decide(late, run, after, [])
        assert not await store.decide(late, after, after, [])
    assert await store.run(run.id) == after
    assert await store.review(run.id) == reviews.decide(asked, APPROVE, NOW)


async def test_of_all_who_come_at_once_one_holds(store: Store):
    """A person, another one, the deadline, a stop: whatever comes first."""
    for n in range(30):
        run, asked = await waiting(store, expires_at=NOW + 1)
        failed = replace(runs.end(run, RunState.FAILED, NOW), seq=2)
        stopped = replace(runs.end(run, RunState.CANCELLED, NOW), seq=2)
        calls = [
            store.decide(reviews.decide(asked, APPROVE, NOW), run, runs.resume(run), []),
            store.decide(reviews.decide(asked, REJECT, NOW), run, runs.resume(run), []),
            store.decide(reviews.expire(asked, NOW), run, failed, [event(run, 2, Channel.CREW)]),
            store.conclude(run, stopped, [event(run, 2, Channel.CREW)]),
        ]
        order = [(n + i) % 4 for i in range(4)]
        held = await asyncio.gather(*(calls[i] for i in order))
        assert sum(held) == 1
        found, review = await store.run(run.id), await store.review(run.id)
        assert found is not None
        assert review is not None
        assert (found.state, review.state) in {
            (RunState.QUEUED, ReviewState.DECIDED),
            (RunState.FAILED, ReviewState.VOID),
            (RunState.CANCELLED, ReviewState.VOID),
        }
        assert len(await store.events(run.id)) == (1 if found.state is RunState.QUEUED else 2)
        if found.state is RunState.QUEUED:
            await goes_on(store, found)


async def test_a_decision_on_an_older_state_changes_nothing(store: Store):
    run, asked = await waiting(store)
    done, after = reviews.decide(asked, APPROVE, NOW), runs.resume(run)
    stale = replace(run, seq=0)
    assert not await store.decide(done, stale, replace(after, seq=0), [])
    other = replace(run, state=RunState.QUEUED)
    assert not await store.decide(done, other, replace(other, continues=True), [])
    assert not await store.decide(replace(done, number=2), run, after, [])
    assert await store.review(run.id) == asked
    assert await store.run(run.id) == run


async def test_a_deadline_without_a_default_ends_the_run_with_its_event(store: Store):
    run, asked = await waiting(store, ALL, expires_at=NOW + SECOND)
    lapsed = reviews.expire(asked, NOW + SECOND)
    failed = replace(runs.end(run, RunState.FAILED, NOW + SECOND, error="nobody decided"), seq=2)
    assert await store.decide(lapsed, run, failed, [event(run, 2, Channel.CREW)])
    assert await store.run(run.id) == failed
    assert await store.review(run.id) == lapsed
    assert [one.seq for one in await store.events(run.id)] == [1, 2]
    assert not await store.decide(reviews.decide(asked, APPROVE, NOW), run, runs.resume(run), [])


async def test_what_cannot_be_a_decision_is_a_defect(store: Store):
    run, asked = await waiting(store)
    other, _ = await waiting(store)
    done = reviews.decide(asked, APPROVE, NOW)
    with pytest.raises(ValueError, match="is not decided"):
        await store.decide(asked, run, runs.resume(run), [])
    with pytest.raises(ValueError, match="none of run"):
        await store.decide(done, other, runs.resume(other), [])
    with pytest.raises(ValueError, match="do not lead"):
        await store.decide(done, run, runs.resume(run), [event(run, 2)])
    with pytest.raises(ValueError, match="cannot be number"):
        await store.decide(done, run, replace(runs.resume(run), seq=2), [event(run, 3)])
    assert await store.run(run.id) == run
    assert await store.review(run.id) == asked


async def test_a_run_asks_as_often_as_it_wants_one_thing_at_a_time(store: Store):
    run, asked = await waiting(store)
    made = [reviews.decide(asked, REJECT, NOW)]
    for number in range(2, 5):
        run = await goes_on(store, await decided(store, run, asked, decision=REJECT))
        run, asked = await paused(store, run, number, NOW + number)
        made.append(reviews.decide(asked, REJECT, NOW))
        assert [one for _, one in await store.reviews()] == [asked]
    assert await store.review(run.id) == asked
    assert await store.review(run.id, 2) == made[1]
    assert await store.review(run.id, 9) is None
    assert [one for _, one in await store.reviews(None, run.id)] == [*made[:3], asked]
    assert [one for _, one in await store.reviews(ReviewState.DECIDED, run.id)] == made[:3]
    assert (await store.run(run.id) or run).attempt == 1


# --- a process that waits in place ----------------------------------------------------------


async def in_place(store: Store, **fields) -> tuple[Run, Review]:
    """A running run that asks, and stays with its process."""
    run = await running(store, ALL)
    asked, after = question(run, **fields), replace(run, seq=1)
    assert await store.append(after, [event(run, 1, Channel.TASK)], WORKER, review=asked)
    return after, asked


async def test_a_run_may_ask_and_stay_at_work(store: Store):
    run, asked = await in_place(store, expires_at=NOW + 9)
    assert await store.run(run.id) == run
    assert [one for _, one in await store.reviews()] == [asked]
    assert await store.due_reviews(NOW + 9, 9) == [asked]
    run = await append(store, run, Channel.STEP)
    assert await store.review(run.id) == asked
    with pytest.raises(StoreError):
        await store.append(run, [], WORKER, review=question(run, 2))


async def test_a_decision_about_a_run_at_work_changes_its_review_alone(store: Store):
    run, asked = await in_place(store)
    moved = await append(store, run, Channel.STEP)  # no obstacle: the process goes on by itself
    lanes = await store.lanes(run.id)
    heard = Heard(store)
    done = reviews.decide(asked, REJECT, NOW)
    held = await asyncio.gather(
        store.decide(done, run, run, []), store.decide(reviews.decide(asked, APPROVE, NOW), run, run, [])
    )
    assert list(held) == [True, False]
    assert heard.take() == [(Hint.EVENTS, run.id)]
    assert await store.run(run.id) == moved
    assert await store.review(run.id) == done
    assert await store.lanes(run.id) == lanes
    asked = question(run, 2)
    assert await store.append(moved, [], WORKER, review=asked)
    urls: list[Lane] | None
    for after, events, urls in [
        (runs.end(moved, RunState.FAILED, NOW), [], None),
        (moved, [event(run, 3)], None),
        (moved, [], []),
    ]:
        with pytest.raises(ValueError, match="nothing but its review"):
            await store.decide(reviews.decide(asked, APPROVE, NOW), moved, after, events, urls)
    assert await store.review(run.id) == asked


@pytest.mark.parametrize(
    "move", [runs.requeue, runs.pause, lambda run, now: runs.end(run, RunState.FAILED, now)]
)
async def test_what_was_asked_in_place_is_void_once_the_run_is_not_at_work(store: Store, move):
    run, asked = await in_place(store, expires_at=NOW + 9)
    beside, other = await in_place(store)
    after = move(run, NOW + 5)
    assert await store.append(after, [], WORKER)
    void = await store.review(run.id)
    assert void is not None
    assert (void.state, void.decided_at) == (ReviewState.VOID, after.finished_at)
    assert not await store.decide(reviews.decide(asked, APPROVE, NOW), run, run, [])
    assert await store.next_review_due() is None
    assert [one for _, one in await store.reviews()] == [other]
    assert await store.run(beside.id) == beside


async def test_a_run_at_work_is_not_reminded_of_by_others(store: Store):
    """Its log belongs to its worker."""
    run, asked = await in_place(store, remind_every=5)
    assert not await store.remind(reviews.remind(asked, NOW + 5), run, replace(run, seq=2), [event(run, 2)])
    assert await store.review(run.id) == asked


# --- lists ----------------------------------------------------------------------------------


async def test_what_is_pending_is_listed_in_the_order_of_asking_in_pages(store: Store):
    made = [await waiting(store) for _ in range(7)]
    await decided(store, *made[2])
    found: list[str] = []
    after = 0
    while page := await store.reviews(after=after, limit=2):
        found += [review.run_id for _, review in page]
        after = page[-1][0]
    assert found == [run.id for n, (run, _) in enumerate(made) if n != 2]
    assert [review.run_id for _, review in await store.reviews("decided")] == [made[2][0].id]
    assert len(await store.reviews(None)) == 7
    assert [one for _, one in await store.reviews(run_id=made[3][0].id)] == [made[3][1]]
    assert await store.reviews("void") == []


@pytest.mark.parametrize("text", ["", "nonsense", "x" * 5000, "a\0b", "' OR 1=1 --"])
async def test_any_text_may_be_asked_for(store: Store, text: str):
    await waiting(store)
    assert await store.review(text) is None
    assert await store.review(text, 1) is None
    assert await store.reviews(run_id=text) == []
    assert await store.journal(text) == {}
    assert await store.request_stop(text, "kim") is None


# --- what is due ----------------------------------------------------------------------------


async def test_what_is_due_is_found_longest_due_first(store: Store):
    assert await store.next_review_due() is None
    _, third = await waiting(store, expires_at=NOW + 30)
    _, first = await waiting(store, expires_at=NOW + 99, remind_every=10)
    _, second = await waiting(store, expires_at=NOW + 20, remind_every=90)
    await waiting(store)
    assert await store.next_review_due() == NOW + 10
    assert await store.due_reviews(NOW + 9, 9) == []
    assert await store.due_reviews(NOW + 10, 9) == [first]
    assert await store.due_reviews(NOW + 99, 9) == [first, second, third]
    assert await store.due_reviews(NOW + 99, 2) == [first, second]


async def test_what_is_decided_is_not_due(store: Store):
    run, asked = await waiting(store, expires_at=NOW + 5, remind_every=2)
    await goes_on(store, await decided(store, run, asked))
    run, _ = await waiting(store, expires_at=NOW + 5, remind_every=2)
    assert await store.conclude(run, runs.end(run, RunState.CANCELLED, NOW), [])
    run, _ = await waiting(store, expires_at=NOW + 5, remind_every=2)
    assert await store.delete_run(run.id) is Removal.HIDDEN
    assert await store.next_review_due() is None
    assert await store.due_reviews(LONG_AFTER, 9) == []


async def test_a_reminder_is_told_once_and_the_run_waits_on(store: Store):
    run, asked = await waiting(store, ALL, remind_every=10)
    reminded = reviews.remind(asked, NOW + 10)
    after = replace(run, seq=2)
    told = event(run, 2, Channel.HUMAN_INPUT, NOW + 10)
    heard = Heard(store)
    held = await asyncio.gather(*(store.remind(reminded, run, after, [told]) for _ in range(3)))
    assert sorted(held) == [False, False, True]
    assert heard.take() == [(Hint.EVENTS, run.id)]
    assert await store.run(run.id) == after
    assert await store.review(run.id) == reminded
    assert await store.next_review_due() == NOW + 20
    assert await store.events(run.id, 1) == [told]
    assert (await one_lane(store, run)).tail == 2
    assert await store.decide(reviews.decide(reminded, APPROVE, NOW), after, runs.resume(after), [])


async def test_a_reminder_without_an_event_is_given_once_too(store: Store):
    run, asked = await waiting(store, remind_every=10)
    reminded = reviews.remind(asked, NOW + 10)
    assert await store.remind(reminded, run, run, [])
    assert not await store.remind(reminded, run, run, [])
    await decided(store, run, reminded)
    assert not await store.remind(reviews.remind(reminded, NOW + 20), run, run, [])
    with pytest.raises(ValueError, match="decides nothing"):
        await store.remind(reminded, run, runs.resume(run), [])


# --- the end --------------------------------------------------------------------------------


async def test_a_waiting_or_queued_run_is_concluded_with_its_event(store: Store):
    heard = Heard(store)
    for run in ((await waiting(store, ALL))[0], await queued(store, ALL)):
        heard.take()
        ended = replace(runs.end(run, RunState.CANCELLED, NOW + 5), seq=run.seq + 1, stop="kim")
        told = event(run, ended.seq, Channel.CREW)
        assert await store.conclude(run, ended, [told])
        assert heard.take() == [(Hint.EVENTS, run.id)]
        assert await store.run(run.id) == ended
        assert (await store.events(run.id))[-1] == told
        assert (await one_lane(store, run)).tail == ended.seq
        assert not await store.conclude(run, ended, [told])
        assert await store.claim_runs([run.crew], 9, WORKER, NOW, 1) == []
    void = (await store.reviews("void"))[0][1]
    assert (void.state, void.decided_at, void.decided_by, void.decided_how) == (
        "void",
        NOW + 5,
        "kim",
        None,
    )
    assert await store.reviews() == []


async def test_a_run_that_somebody_holds_is_not_concluded(store: Store):
    run = await running(store)
    assert not await store.conclude(run, runs.end(run, RunState.CANCELLED, NOW), [])
    queue = await queued(store, crew="other")
    (held,) = await store.claim_runs(["other"], 1, WORKER, NOW, 60)
    assert not await store.conclude(queue, runs.end(queue, RunState.CANCELLED, NOW), [])
    assert await store.run(queue.id) == held


async def test_who_asks_a_question_is_hidden_with_it_and_swept_with_it(store: Store):
    run, asked = await waiting(store, expires_at=NOW + 5)
    kept, other = await waiting(store)
    assert await store.expire(LONG_AFTER, 9) == []
    assert await store.delete_run(run.id) is Removal.HIDDEN
    assert await store.review(run.id) is None
    assert [one for _, one in await store.reviews(None)] == [other]
    assert await store.reviews(None, run.id) == []
    assert not await store.decide(reviews.decide(asked, APPROVE, NOW), run, runs.resume(run), [])
    assert not await store.conclude(run, runs.end(run, RunState.CANCELLED, NOW), [])
    assert await store.request_stop(run.id, "kim") is None
    # an event, the review, the kickoff, the run
    assert await store.sweep(1) == 1
    assert await store.sweep(100) == 3
    assert await store.sweep(100) == 0
    assert await store.review(kept.id) == other


async def test_numbers_are_not_given_again_after_a_sweep(store: Store):
    run, _ = await waiting(store)
    ((first, _),) = await store.reviews()
    await store.delete_run(run.id)
    while await store.sweep(100):
        pass
    await waiting(store)
    ((second, _),) = await store.reviews()
    assert second > first
