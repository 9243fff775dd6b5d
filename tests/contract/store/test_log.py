"""The log: dense, fenced, read in pages."""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from crewcast.core import run as runs
from crewcast.core.event import Channel, Event
from crewcast.core.run import Run, RunState
from crewcast.store.protocol import Store
from tests.contract.store.world import ALL, NOW, WORKER, append, event, new_run, queued, running


async def test_events_are_stored_as_given(store: Store):
    run = await running(store)
    whole = Event(
        run.id, 1, Channel.TASK, "task.completed", b"cut\x00\xff", NOW, 2, "task-1", b"all of it \xff"
    )
    plain = event(run, 2, Channel.CREW)
    assert await store.append(replace(run, seq=2), [whole, plain], WORKER)
    assert await store.events(run.id) == [whole, plain]
    assert (await store.events(run.id))[0].channel is Channel.TASK
    assert await store.last_event(run.id, Channel.TASK) == whole


async def test_pages(store: Store):
    run = await running(store)
    run = await append(store, run, *[Channel.TASK, Channel.STEP, Channel.STREAM] * 4)

    async def seqs(after: int = 0, limit: int = 100, channels: Channel | None = None) -> list[int]:
        return [found.seq for found in await store.events(run.id, after, limit, channels)]

    assert await seqs() == list(range(1, 13))
    assert await seqs(4, 3) == [5, 6, 7]
    assert await seqs(11) == [12]
    assert await seqs(12) == await seqs(99) == []
    assert await seqs(0, 0) == []
    assert await seqs(2, 3, channels=Channel.TASK | Channel.STREAM) == [3, 4, 6]
    assert await seqs(channels=Channel.CREW) == []
    assert (await store.last_event(run.id, Channel.STEP) or run).seq == 11
    assert await store.last_event(run.id, Channel.CREW) is None


async def test_an_append_moves_the_run_and_nothing_that_is_not_its_own(store: Store):
    run = await running(store)
    changed = replace(
        runs.progress(run, total_tasks=3, completed_tasks=1, current_task="write"),
        seq=1,
        crew="other",
        inputs=b"other",
        attempt=9,
        lease_until=NOW + 1,
        lease_token="other",
    )
    assert await store.append(changed, [event(run, 1)], WORKER)
    assert await store.run(run.id) == replace(
        run, seq=1, total_tasks=3, completed_tasks=1, current_task="write"
    )


async def test_an_append_without_events_is_progress(store: Store):
    run = await running(store, ALL)
    assert await store.append(runs.progress(run, total_tasks=3), [], WORKER)
    assert (await store.run(run.id)) == replace(run, total_tasks=3)
    assert await store.next_due() is None


@pytest.mark.parametrize("state", [RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED])
async def test_the_append_that_ends_a_run_gives_its_lease_back(store: Store, state: RunState):
    run = await running(store, ALL)
    ended = replace(runs.end(run, state, NOW + 9, error="why", detail="where"), seq=1)
    assert await store.append(ended, [event(run, 1, Channel.CREW)], WORKER)
    assert await store.run(run.id) == ended
    assert not await store.append(replace(run, seq=2), [event(run, 2)], WORKER)
    assert await store.running_runs() == []
    assert await store.claim_runs(["running"], 9, WORKER, NOW, 1) == []


@pytest.mark.parametrize("move", [runs.requeue, runs.pause])
async def test_a_run_that_stops_to_run_is_held_by_nobody(store: Store, move):
    run = await running(store)
    after = move(run, NOW + 9)
    assert await store.append(after, [], WORKER)
    assert (after.lease_token, after.claimed_at, after.worked) == (None, None, 9)
    assert await store.run(run.id) == after
    again = await store.claim_runs(["running"], 9, "next", NOW + 5, 10)
    assert [r.attempt for r in again] == ([2] if after.state is RunState.QUEUED else [])


# --- guards ---------------------------------------------------------------------------------


async def unchanged_by(store: Store, run: Run, after: Run, events: list[Event], token: str) -> None:
    before = await store.run(run.id), await store.events(run.id), await store.lanes(run.id)
    assert not await store.append(after, events, token)
    assert (await store.run(run.id), await store.events(run.id), await store.lanes(run.id)) == before


async def test_a_zombie_is_refused(store: Store):
    run = await append(store, await running(store, ALL), Channel.STEP)
    await unchanged_by(store, run, replace(run, seq=2), [event(run, 2)], "zombie")
    await unchanged_by(store, run, run, [], "zombie")


async def test_a_log_that_moved_on_refuses(store: Store):
    first = await running(store, ALL)
    run = await append(store, first, Channel.STEP, Channel.STEP)
    await unchanged_by(store, run, replace(first, seq=1), [event(run, 1)], WORKER)
    await unchanged_by(store, run, replace(first, seq=2), [event(run, 2)], WORKER)
    await unchanged_by(store, run, replace(run, seq=4), [event(run, 4)], WORKER)
    await unchanged_by(store, run, first, [], WORKER)


async def test_a_run_that_does_not_run_refuses(store: Store):
    run, unknown = await queued(store), new_run()
    await unchanged_by(store, run, replace(run, seq=1), [event(run, 1)], WORKER)
    assert not await store.append(replace(unknown, seq=1), [event(unknown, 1)], WORKER)
    assert await store.events(unknown.id) == []


async def test_a_gap_in_the_numbers_is_a_defect_and_writes_nothing(store: Store):
    run = await running(store)
    other = await running(store)
    for events in ([event(run, 1), event(run, 3)], [event(other, 1), event(other, 2)]):
        with pytest.raises(ValueError, match="number"):
            await store.append(replace(run, seq=2), events, WORKER)
    assert await store.events(run.id) == []
    assert await store.run(run.id) == run


# --- many at once ---------------------------------------------------------------------------


async def test_fifty_runs_append_at_once(store: Store):
    made = [await running(store, ALL, Channel.CREW) for _ in range(50)]

    async def work(run: Run) -> None:
        for n in range(20):
            run = await append(store, run, *[Channel.STEP, Channel.TASK][: 1 + n % 2])

    await asyncio.gather(*map(work, made))
    for run in made:
        found = await store.events(run.id, limit=1000)
        assert [one.seq for one in found] == list(range(1, 31))
        assert {one.run_id for one in found} == {run.id}
        first, second = await store.lanes(run.id)
        assert (first.tail, second.tail) == (30, 0)


async def test_appends_of_one_caller_keep_their_order_before_they_are_awaited(store: Store):
    run = await running(store, ALL)
    writing = []
    for seq in range(1, 101):
        ended = runs.end(run, RunState.COMPLETED, NOW) if seq == 100 else run
        channel = Channel.CREW if seq == 100 else Channel.STREAM
        writing.append(
            asyncio.ensure_future(store.append(replace(ended, seq=seq), [event(run, seq, channel)], WORKER))
        )
    late = asyncio.ensure_future(store.append(replace(run, seq=101), [event(run, 101)], WORKER))
    assert all(await asyncio.gather(*writing))
    assert not await late
    assert [one.seq for one in await store.events(run.id, limit=1000)] == list(range(1, 101))
    assert (await store.run(run.id)) == replace(runs.end(run, RunState.COMPLETED, NOW), seq=100)


async def test_a_refused_append_among_many_refuses_itself_alone(store: Store):
    made = [await running(store, ALL) for _ in range(10)]
    writing = [
        asyncio.ensure_future(
            store.append(replace(run, seq=1), [event(run, 1)], "zombie" if n == 4 else WORKER)
        )
        for n, run in enumerate(made)
    ]
    assert await asyncio.gather(*writing) == [n != 4 for n in range(10)]
    assert [len(await store.events(run.id)) for run in made] == [int(n != 4) for n in range(10)]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    writes=st.lists(
        st.tuples(
            st.integers(0, 2),  # which run
            st.lists(st.sampled_from(list(Channel)), max_size=4),
            st.sampled_from(["right", "right", "right", "stale", "zombie"]),
        ),
        max_size=30,
    ),
    together=st.booleans(),
)
def test_any_mix_of_appends_leaves_what_one_after_the_other_would(store: Store, runner, writes, together):
    async def scenario() -> None:
        lanes = (Channel.TASK, Channel.STEP | Channel.CREW, ALL)
        made = [await running(store, *lanes) for _ in range(3)]
        logs: list[list[Event]] = [[], [], []]
        pending, expected = [], []
        for which, channels, kind in writes:
            run, log = made[which], logs[which]
            seq = len(log) - (kind == "stale" and bool(log))
            events = [event(run, seq + n, channel) for n, channel in enumerate(channels, 1)]
            right = kind == "right" or (kind == "stale" and not log)
            token = "zombie" if kind == "zombie" else WORKER
            write = asyncio.ensure_future(store.append(replace(run, seq=seq + len(events)), events, token))
            if not together:
                await write
            pending.append(write)
            expected.append(right)
            if right:
                log += events
        assert await asyncio.gather(*pending) == expected
        for run, log in zip(made, logs, strict=True):
            assert await store.events(run.id, limit=1000) == log
            stored = await store.run(run.id)
            assert stored is not None
            assert stored.seq == len(log)
            for lane in await store.lanes(run.id):
                mine = [one.seq for one in log if one.channel & lane.channels]
                assert lane.tail == (mine[-1] if mine else 0)
                assert (lane.due_at is not None) == bool(mine)

    runner.run(scenario())
