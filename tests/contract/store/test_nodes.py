"""Who is there, what they serve, whose clock counts, and whose lease lapsed."""

import asyncio
import time

from msgspec.structs import replace

from crewcast.core import run as runs
from crewcast.core.event import Channel
from crewcast.core.node import Node, Role
from crewcast.core.run import RunState
from crewcast.store.nodes import PublishedCrew
from crewcast.store.protocol import Store
from tests.contract.store.world import (
    ALL,
    LEASE,
    NOW,
    SECOND,
    WORKER,
    append,
    ended,
    new_run,
    running,
    waiting,
)

EVERYTHING = tuple(Role)
NEVER = 0  # forget nothing


def a_node(node_id: str = "n1", name: str = "a", seen_at: int = NOW, **fields) -> Node:
    plain = Node(node_id, name, EVERYTHING, "1.0", NOW, seen_at, seen_at + LEASE)
    return replace(plain, **fields)


async def test_the_clock_of_the_store_tells_the_time_and_never_goes_back(store: Store):
    told = [await store.time() for _ in range(5)]
    assert told == sorted(told)
    assert abs(told[0] / SECOND - time.time()) < 60


async def test_a_node_is_there_as_it_last_said(store: Store):
    assert await store.nodes() == []
    node = a_node(roles=(Role.WORKER,), crews=("tea", 'ünïcode, "quoted"'), url="http://a:8000")
    await store.beat(node, {}, NEVER)
    assert await store.nodes() == [node]
    later = replace(node, seen_at=NOW + 9, until=NOW + 9 + LEASE, draining=True, crews=("tea",), url=None)
    await store.beat(later, {}, NEVER)
    assert await store.nodes() == [later]


async def test_nodes_come_by_name_and_start(store: Store):
    b = a_node("1", "b")
    old_a, young_a = a_node("3", "a", started_at=NOW - 1), a_node("2", "a")
    for node in (b, young_a, old_a):
        await store.beat(node, {}, NEVER)
    assert await store.nodes() == [old_a, young_a, b]


async def test_a_node_that_leaves_is_forgotten_and_its_crews_stay_known(store: Store):
    one, other = a_node("1", "a", crews=("tea",)), a_node("2", "b")
    await store.beat(one, {"tea": b"{}"}, NEVER)
    await store.beat(other, {}, NEVER)
    await store.leave("1")
    assert await store.nodes() == [other]
    assert await store.published_crews() == [PublishedCrew("tea", b"{}", NOW)]
    await store.leave("1")
    await store.leave("unknown")
    assert await store.nodes() == [other]


async def test_a_lapsed_node_is_shown_until_a_beat_forgets_it(store: Store):
    lapsed, living = a_node("1", "a", until=NOW - 1), a_node("2", "b")
    await store.beat(lapsed, {}, NEVER)
    await store.beat(living, {}, NOW - 1)  # a moment that it does not lie before
    assert await store.nodes() == [lapsed, living]
    await store.beat(living, {}, NOW)
    assert await store.nodes() == [living]


async def test_the_newest_word_about_a_crew_counts(store: Store):
    assert await store.published_crews() == []
    await store.beat(a_node("1"), {"tea": b"old", "cake": b"\x00\xff"}, NEVER)
    await store.beat(a_node("2", seen_at=NOW + 5), {"tea": b"new"}, NEVER)
    newest = [PublishedCrew("cake", b"\x00\xff", NOW), PublishedCrew("tea", b"new", NOW + 5)]
    assert await store.published_crews() == newest
    await store.beat(a_node("1", seen_at=NOW + 4), {"tea": b"late"}, NEVER)
    assert await store.published_crews() == newest
    await store.beat(a_node("1", seen_at=NOW + 5), {"tea": b"the same moment"}, NEVER)
    assert (await store.published_crews())[1].described == b"the same moment"


async def test_a_crew_that_nobody_serves_for_long_is_forgotten(store: Store):
    await store.beat(a_node(), {"tea": b"{}"}, NEVER)
    await store.beat(a_node(seen_at=NOW + 9), {"cake": b"{}"}, NOW)
    assert [crew.name for crew in await store.published_crews()] == ["cake", "tea"]
    await store.beat(a_node(seen_at=NOW + 9), {}, NOW + 1)
    assert [crew.name for crew in await store.published_crews()] == ["cake"]


async def test_nodes_that_beat_at_the_same_time_are_all_there(store: Store):
    nodes = [a_node(f"{n:02}", f"{n:02}", crews=("tea", f"own{n:02}")) for n in range(20)]
    await asyncio.gather(
        *(store.beat(node, {"tea": b"{}", node.crews[1]: b"{}"}, NOW - 1) for node in nodes),
        *(store.beat(node, {node.crews[1]: b"{}", "tea": b"{}"}, NOW - 1) for node in reversed(nodes)),
    )
    assert await store.nodes() == nodes
    assert len(await store.published_crews()) == 21


async def test_renewing_says_what_is_still_held(store: Store):
    mine = [await running(store, ALL) for _ in range(3)]
    theirs = await running(store, worker="worker-2")
    gone = await ended(store, mine[0])
    assert await store.adopt(mine[1], "worker-2", NOW + LEASE)
    assert await store.renew_runs(WORKER, NOW + 2 * LEASE) == [mine[2].id]
    assert sorted(await store.renew_runs("worker-2", NOW + 3 * LEASE)) == sorted([mine[1].id, theirs.id])
    assert await store.renew_runs("nobody", NOW + LEASE) == []
    until = {run.id: run.lease_until for run in await store.running_runs()}
    assert until == {mine[1].id: NOW + 3 * LEASE, mine[2].id: NOW + 2 * LEASE, theirs.id: NOW + 3 * LEASE}
    after = await store.run(gone.id)
    assert after is not None
    assert after.lease_until is None


async def test_a_running_run_lapses_with_its_lease_the_longest_first(store: Store):
    young = await running(store, worker="young")
    old = await running(store, worker="old")
    await store.renew_runs("young", NOW + LEASE + 5)
    assert await store.lapsed_runs(NOW + LEASE - 1, 9) == []
    assert [run.id for run in await store.lapsed_runs(NOW + LEASE, 9)] == [old.id]
    assert [run.id for run in await store.lapsed_runs(NOW + LEASE + 5, 9)] == [old.id, young.id]
    assert [run.id for run in await store.lapsed_runs(NOW + LEASE + 5, 1)] == [old.id]
    (found,) = await store.lapsed_runs(NOW + LEASE, 9)
    assert found == await store.run(old.id)
    assert found.lease_token == "old"


async def test_only_what_runs_lapses(store: Store):
    await waiting(store, ALL)
    await store.create_run(new_run(), [], None, NOW)
    await ended(store, await running(store))
    assert await store.lapsed_runs(NOW + 99 * LEASE, 9) == []


async def test_of_those_who_take_over_a_lapsed_run_one_gets_it(store: Store):
    await running(store, worker="gone")
    (run,) = await store.lapsed_runs(NOW + LEASE, 9)
    takers = [f"taker-{n}" for n in range(8)]
    taken = await asyncio.gather(*(store.adopt(run, taker, NOW + 2 * LEASE) for taker in takers))
    assert taken.count(True) == 1
    assert await store.lapsed_runs(NOW + LEASE, 9) == []
    held = await store.run(run.id)
    assert held is not None
    assert held.lease_token == takers[taken.index(True)]
    assert held.lease_until == NOW + 2 * LEASE


async def test_who_lost_a_run_writes_nothing_to_it(store: Store):
    run = await append(store, await running(store, ALL, worker="zombie"), Channel.STEP, token="zombie")
    (lapsed,) = await store.lapsed_runs(NOW + LEASE, 9)
    assert await store.adopt(lapsed, WORKER, NOW + 2 * LEASE)
    late = replace(runs.end(run, RunState.COMPLETED, NOW), seq=run.seq)
    assert not await store.append(late, [], "zombie")
    assert await store.renew_runs("zombie", NOW + 9 * LEASE) == []
    assert await store.events(run.id, run.seq) == []
    held = await store.run(run.id)
    assert held is not None
    assert (held.state, held.lease_until) == (RunState.RUNNING, NOW + 2 * LEASE)
