"""Runs: created once, claimed by one, fenced by their lease."""

import asyncio

import pytest
from msgspec.structs import replace

from crewcast.core import run as runs
from crewcast.core.errors import StoreError
from crewcast.core.event import Channel
from crewcast.core.run import RunState
from crewcast.store.protocol import Created, Hint, IdempotencyKey, Store
from tests.contract.store.world import (
    ALL,
    DAY,
    LEASE,
    NOW,
    SECOND,
    WORKER,
    Heard,
    append,
    event,
    lane,
    new_run,
    queued,
    running,
)

KEY = IdempotencyKey("token-1", "key-1", b"f" * 32)


async def test_a_created_run_and_its_lanes_can_be_read(store: Store):
    run = replace(new_run(), meta=b'{"a": 1}', options=b"{}", token="token-1")
    lanes = [
        lane(run, 1, Channel.TASK | Channel.STEP),
        lane(run, 2, Channel.CREW, "http://b.example:81/x?y=1"),
    ]
    assert await store.create_run(run, lanes, None, NOW) == Created(run.id)
    assert await store.run(run.id) == run
    assert await store.lanes(run.id) == lanes
    assert await store.events(run.id) == []
    assert await store.last_event(run.id, Channel.CREW) is None
    assert await store.attempts(run.id) == []
    assert await store.dead_letters(run.id) == []


@pytest.mark.parametrize("text", ["", "nonsense", "0" * 36, "x" * 5000, "a\0b", "é", "' OR 1=1 --"])
async def test_any_text_may_be_asked_for(store: Store, text: str):
    await queued(store, ALL)
    assert await store.run(text) is None
    assert await store.events(text) == []
    assert await store.lanes(text) == []


async def test_an_id_is_used_once_and_the_second_run_leaves_nothing(store: Store):
    run = await queued(store, ALL)
    with pytest.raises(StoreError):
        await store.create_run(run, [lane(run, 7)], KEY, NOW)
    assert [stored.number for stored in await store.lanes(run.id)] == [1]
    other = new_run()
    assert await store.create_run(other, [], KEY, NOW) == Created(other.id)


# --- idempotency ----------------------------------------------------------------------------


async def test_a_key_starts_one_run(store: Store):
    run, again = new_run(), new_run()
    assert await store.create_run(run, [], KEY, NOW) == Created(run.id)
    assert await store.create_run(again, [], KEY, NOW + 1) == Created(run.id, replayed=True)
    assert await store.run(again.id) is None


async def test_a_key_with_another_body_is_a_conflict(store: Store):
    run, other = new_run(), new_run()
    await store.create_run(run, [], KEY, NOW)
    found = await store.create_run(other, [], IdempotencyKey(KEY.token, KEY.key, b"g" * 32), NOW)
    assert found.conflict
    assert found.run_id == run.id
    assert await store.run(other.id) is None


async def test_keys_are_per_token(store: Store):
    run, other = new_run(), new_run()
    await store.create_run(run, [], KEY, NOW)
    key = IdempotencyKey("token-2", KEY.key, KEY.fingerprint)
    assert await store.create_run(other, [], key, NOW) == Created(other.id)


async def test_a_key_is_valid_for_a_day(store: Store):
    run, late, new = new_run(), new_run(), new_run()
    await store.create_run(run, [], KEY, NOW)
    assert (await store.create_run(late, [], KEY, NOW + DAY - 1)).replayed
    assert await store.create_run(new, [], KEY, NOW + DAY) == Created(new.id)
    assert await store.create_run(late, [], KEY, NOW + DAY + 1) == Created(new.id, replayed=True)


async def test_what_a_key_started_can_be_asked_for(store: Store):
    run = new_run()
    assert await store.earlier(KEY, NOW) is None
    await store.create_run(run, [], KEY, NOW)
    assert await store.earlier(KEY, NOW + DAY - 1) == Created(run.id, replayed=True)
    assert await store.earlier(KEY, NOW + DAY) is None
    other = IdempotencyKey(KEY.token, KEY.key, b"g" * 32)
    assert await store.earlier(other, NOW) == Created(run.id, replayed=True, conflict=True)
    assert await store.earlier(IdempotencyKey("token-2", KEY.key, KEY.fingerprint), NOW) is None


async def test_fifty_at_once_with_one_key_start_one_run(store: Store):
    created = await asyncio.gather(*(store.create_run(new_run(), [], KEY, NOW) for _ in range(50)))
    assert len({one.run_id for one in created}) == 1
    assert sum(not one.replayed for one in created) == 1


# --- claims ---------------------------------------------------------------------------------


async def test_claims_take_the_oldest_of_their_crews_and_leave_the_rest(store: Store):
    made = [await queued(store, crew=crew) for crew in ("a", "b", "a", "c", "b")]
    claimed = await store.claim_runs(["a", "b"], 3, WORKER, NOW + 5, LEASE)
    assert claimed == [runs.claim(run, WORKER, NOW + 5, LEASE) for run in (made[0], made[1], made[2])]
    assert await store.run(made[0].id) == claimed[0]
    assert [r.id for r in await store.claim_runs(["a", "b"], 3, WORKER, NOW, LEASE)] == [made[4].id]
    assert await store.claim_runs(["a", "b"], 3, WORKER, NOW, LEASE) == []
    assert await store.claim_runs([], 3, WORKER, NOW, LEASE) == []
    assert (await store.run(made[3].id)) == made[3]


async def test_no_two_claims_get_the_same_run(store: Store):
    made = {(await queued(store)).id for _ in range(40)}
    claims = await asyncio.gather(
        *(store.claim_runs(["crew"], 3, f"worker-{n}", NOW, LEASE) for n in range(20))
    )
    taken = [run.id for claim in claims for run in claim]
    assert len(taken) == 40
    assert set(taken) == made


async def test_renewing_prolongs_what_the_token_holds(store: Store):
    mine, theirs, waiting = await running(store), await running(store, worker="other"), await queued(store)
    await store.renew_runs(WORKER, NOW + 99)
    assert await store.run(mine.id) == replace(mine, lease_until=NOW + 99)
    assert await store.run(theirs.id) == theirs
    assert await store.run(waiting.id) == waiting


async def test_running_runs_are_those_that_run(store: Store):
    await queued(store)
    one, two, three = await running(store), await running(store), await running(store)
    assert await store.append(runs.end(two, RunState.COMPLETED, NOW), [], WORKER)
    assert await store.running_runs() == [one, three]


async def test_adopting_fences_the_one_who_held_it(store: Store):
    run = await running(store)
    assert await store.adopt(run, "new", NOW + 7)
    assert await store.run(run.id) == replace(run, lease_token="new", lease_until=NOW + 7)
    assert not await store.append(replace(run, seq=1), [event(run, 1)], WORKER)
    assert not await store.adopt(run, "late", NOW + 9)
    await append(store, run, Channel.STEP, token="new")


async def test_only_a_running_run_is_adopted(store: Store):
    waiting, unknown, ended = await queued(store), new_run(), await running(store)
    assert await store.append(runs.end(ended, RunState.FAILED, NOW, error="x"), [], WORKER)
    assert not await store.adopt(waiting, "new", NOW)
    assert not await store.adopt(unknown, "new", NOW)
    assert not await store.adopt(ended, "new", NOW)


# --- hints ----------------------------------------------------------------------------------


async def test_listeners_hear_what_was_committed(store: Store):
    heard = Heard(store)
    run = await queued(store)
    assert heard.take() == [(Hint.QUEUED, run.id)]
    (run,) = await store.claim_runs(["crew"], 1, WORKER, NOW, LEASE)
    assert heard.take() == [(Hint.EVENTS, run.id)]
    run = await append(store, run, Channel.STEP, Channel.TASK)
    assert heard.take() == [(Hint.EVENTS, run.id)]
    assert not await store.append(replace(run, seq=9), [event(run, 9)], "zombie")
    assert heard.take() == []
    assert await store.append(runs.move(run, RunState.QUEUED), [], WORKER)
    assert sorted(heard.take()) == [(Hint.EVENTS, run.id), (Hint.QUEUED, run.id)]
    heard.forget()
    await queued(store)
    assert heard.take() == []


async def test_a_replayed_kickoff_gives_no_hint(store: Store):
    await store.create_run(new_run(), [], KEY, NOW)
    heard = Heard(store)
    await store.create_run(new_run(), [], KEY, NOW + SECOND)
    assert heard.take() == []


async def test_who_is_hinted_can_read_it(store: Store):
    """A listener that reads at once sees the events it was told of."""
    run = await running(store, ALL)
    reads: list[asyncio.Task[list[int]]] = []

    async def read() -> list[int]:
        return [found.seq for found in await store.events(run.id)]

    store.listen(lambda hint, run_id: reads.append(asyncio.create_task(read())))
    for _ in range(20):
        run = await append(store, run, Channel.STEP)
    found = [await seen for seen in reads]
    # And maybe later ones, if it was slow.
    assert [seen[:n] for n, seen in enumerate(found, 1)] == [list(range(1, n + 1)) for n in range(1, 21)]


# --- closing --------------------------------------------------------------------------------


async def test_closing_writes_what_is_queued_and_refuses_the_rest(store: Store):
    made = [new_run() for _ in range(20)]
    writing = [asyncio.create_task(store.create_run(run, [], None, NOW)) for run in made]
    await asyncio.sleep(0)
    await store.close()
    assert [(await one).run_id for one in writing] == [run.id for run in made]
    with pytest.raises(StoreError):
        await store.create_run(new_run(), [], None, NOW)
    with pytest.raises(StoreError):
        await store.append(made[0], [], WORKER)
    with pytest.raises(StoreError):
        await store.run(made[0].id)
    await store.close()
