"""The journal: what a run's next process has to know, in the transaction of what it tells of."""

import asyncio

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from crewcast.core import run as runs
from crewcast.core.event import Channel
from crewcast.core.run import RunState
from crewcast.store.protocol import Created, IdempotencyKey, Removal, Store
from tests.contract.store.world import (
    ALL,
    LEASE,
    NOW,
    WORKER,
    append,
    event,
    goes_on,
    new_run,
    paused,
    queued,
    running,
)

KEY = IdempotencyKey("token-1", "key-1", b"f" * 32)


async def test_entries_are_read_as_they_were_written(store: Store):
    run = await running(store)
    entries = {"run": b"{}", "task:a b/c": b"\x00\xff" * 9, "\u00e9": b"", "large": b"x" * 300_000}
    assert await store.journal(run.id) == {}
    assert await store.append(run, [], WORKER, journal=entries)
    assert await store.journal(run.id) == entries
    assert await store.journal((await queued(store)).id) == {}


async def test_an_entry_is_written_again_or_removed_and_the_others_stay(store: Store):
    run = await running(store)
    assert await store.append(run, [], WORKER, journal={"a": b"1", "b": b"1", "c": b"1"})
    assert await store.append(run, [], WORKER, journal={"a": b"2", "b": None, "unknown": None})
    assert await store.journal(run.id) == {"a": b"2", "c": b"1"}
    await append(store, run, Channel.STEP)
    assert await store.journal(run.id) == {"a": b"2", "c": b"1"}


async def test_a_refused_append_writes_no_entry(store: Store):
    run = await append(store, await running(store), Channel.STEP)
    assert not await store.append(replace(run, seq=2), [event(run, 2)], "zombie", journal={"a": b"1"})
    assert not await store.append(replace(run, seq=1), [event(run, 1)], WORKER, journal={"a": b"1"})
    assert not await store.append(replace(run, seq=7), [event(run, 7)], WORKER, journal={"a": b"1"})
    assert await store.journal(run.id) == {}


async def test_it_comes_with_the_run_and_a_repeated_kickoff_writes_none(store: Store):
    run, again = new_run(), new_run()
    assert await store.create_run(run, [], KEY, NOW, {"run": b"1", "task:a": b"2"}) == Created(run.id)
    assert (await store.create_run(again, [], KEY, NOW, {"run": b"9"})).replayed
    assert await store.journal(run.id) == {"run": b"1", "task:a": b"2"}
    assert await store.journal(again.id) == {}


async def test_it_outlives_a_pause_a_loss_and_the_end(store: Store):
    run = await running(store)
    assert await store.append(run, [], WORKER, journal={"run": b"1"})
    lost = runs.requeue(run, NOW)
    assert await store.append(lost, [], WORKER, journal={"lost": b"1"})
    run, _ = await paused(store, await goes_on(store, lost))
    assert await store.journal(run.id) == {"run": b"1", "lost": b"1"}
    ended = runs.end(run, RunState.CANCELLED, NOW)
    assert await store.conclude(run, ended, [])
    assert await store.journal(run.id) == {"run": b"1", "lost": b"1"}
    assert await store.delete_run(run.id) is Removal.HIDDEN
    assert await store.journal(run.id) == {}


async def test_it_is_swept_in_slices_with_its_run_and_no_other(store: Store):
    gone, kept = await running(store), await running(store)
    for run in (gone, kept):
        ended = runs.end(run, RunState.FAILED, NOW)
        assert await store.append(ended, [], WORKER, journal=dict.fromkeys("abc", b"x"))
    assert await store.delete_run(gone.id) is Removal.HIDDEN
    # 3 entries, the kickoff, the run
    assert [await store.sweep(2) for _ in range(4)] == [2, 2, 1, 0]
    assert await store.journal(kept.id) == dict.fromkeys("abc", b"x")


async def test_entries_of_one_cycle_are_written_in_the_order_of_the_appends(store: Store):
    one, other = await running(store), await running(store)
    writing = []
    for n in range(1, 41):
        for run in (one, other):
            after = replace(run, seq=n)
            entries = {"last": b"%d" % n, f"n{n}": b"x", f"n{n - 1}": None}
            writing.append(store.append(after, [event(run, n)], WORKER, journal=entries))
    assert all(await asyncio.gather(*writing))
    for run in (one, other):
        assert await store.journal(run.id) == {"last": b"40", "n40": b"x"}


async def test_more_entries_than_a_statement_takes(store: Store):
    run = await running(store)
    entries = {f"task:{n}": b"%d" % n for n in range(700)}
    assert await store.append(run, [], WORKER, journal=entries)
    assert await store.journal(run.id) == entries
    assert await store.append(run, [], WORKER, journal=dict.fromkeys(list(entries)[1:]))
    assert await store.journal(run.id) == {"task:0": b"0"}


values = st.none() | st.binary(max_size=3)
changes = st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), values, max_size=4)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 1), changes, st.booleans()), max_size=20))
def test_any_changes_leave_the_last_value_of_each_name(store: Store, runner, story):
    async def scenario() -> None:
        made = [await running(store), await running(store)]
        model: list[dict[str, bytes]] = [{}, {}]
        writing = []
        for which, entries, together in story:
            writing.append(store.append(made[which], [], WORKER, journal=entries))
            model[which] = {
                name: value for name, value in (model[which] | entries).items() if value is not None
            }
            if not together:
                assert all(await asyncio.gather(*writing))
                writing.clear()
        assert all(await asyncio.gather(*writing))
        assert [await store.journal(run.id) for run in made] == model

    runner.run(scenario())


async def test_a_run_that_is_claimed_again_finds_it(store: Store):
    run = await running(store, ALL)
    run = await append(store, run, Channel.TASK)
    assert await store.append(runs.requeue(run, NOW), [], WORKER, journal={"task:a": b"1"})
    (again,) = await store.claim_runs(["running"], 1, "next", NOW, LEASE)
    assert await store.journal(again.id) == {"task:a": b"1"}
