"""Origins: claims that pass over them, lanes parked for them, what is known of them; and their secrets."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from crewcast.core.event import Channel
from crewcast.core.lane import Lane
from crewcast.core.origin import Breaker, Health
from crewcast.core.run import Run
from crewcast.store.protocol import Hint, OriginRow, Store
from tests.contract.store.world import (
    ALL,
    BUSY,
    DISPATCHER,
    GONE,
    LEASE,
    NOW,
    SECOND,
    Heard,
    append,
    claimed,
    delivered,
    event,
    held,
    one_lane,
    running,
    settlement,
)

STEP = Channel.STEP
A, B, C = "https://a.example", "https://b.example", "https://c.example"


async def due(store: Store, origin: str, late: int = 0, events: int = 1) -> Run:
    """A run whose one lane at `origin` has been due since `NOW + late`."""
    run = await running(store, ALL, url=f"{origin}/hook")
    return await append(store, run, *[STEP] * events, at=NOW + late)


async def taken(store: Store, limit: int = 100, *busy: str, per_origin: int | None = None) -> list[Lane]:
    return await store.claim_lanes(limit, DISPATCHER, NOW + 1000, LEASE, busy, per_origin)


def ids(found: list[Lane]) -> list[str]:
    return [lane.run_id for lane in found]


# --- claims ---------------------------------------------------------------------------------


async def test_busy_origins_are_left_out(store: Store):
    made = [await due(store, origin, late) for late, origin in enumerate((A, B, A, C, B))]
    assert ids(await taken(store, 9, A, C)) == [made[1].id, made[4].id]
    assert await taken(store, 9, A, C, "https://unknown.example") == []
    assert ids(await taken(store, 1, C)) == [made[0].id]
    assert ids(await taken(store)) == [made[2].id, made[3].id]


async def test_at_most_so_many_of_an_origin_are_taken_at_once(store: Store):
    made = [await due(store, origin, late) for late, origin in enumerate((A, A, A, B, A, B))]
    first = await taken(store, 9, per_origin=2)
    assert ids(first) == [made[0].id, made[1].id, made[3].id, made[5].id]
    assert ids(await taken(store, 9, B, per_origin=1)) == [made[2].id]
    assert ids(await taken(store, 9, per_origin=5)) == [made[4].id]


async def test_a_claim_finds_the_lanes_behind_many_that_it_passes_over(store: Store):
    """However many those are: 40 origins have 20 lanes each."""
    for n in range(40):
        run = await running(store, *[ALL] * 20, url=f"https://{n}.example/hook")
        await append(store, run, STEP, at=NOW + n)
    busy = [f"https://{n}.example" for n in range(40)]
    assert await taken(store, 9, *busy) == []
    assert await store.next_due(busy) is None
    last, second = await due(store, A, 500), await due(store, B, 400)
    assert await store.next_due(busy) == NOW + 400
    assert await store.next_due([*busy, B]) == NOW + 500
    assert ids(await taken(store, 1, *busy)) == [second.id]
    assert ids(await taken(store, 9, *busy)) == [last.id]
    found = await taken(store, 9, *busy[:13], *busy[14:], per_origin=3)
    assert [lane.origin for lane in found] == [busy[13]] * 3


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lanes=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), max_size=14),
    claims=st.lists(
        st.tuples(
            st.integers(0, 9), st.integers(0, 5), st.sets(st.integers(0, 4)), st.none() | st.integers(1, 3)
        ),
        max_size=6,
    ),
)
def test_a_claim_takes_what_is_due_elsewhere_and_all_of_it_in_the_end(store: Store, runner, lanes, claims):
    async def scenario() -> None:
        # Origins of this example alone; whatever earlier examples left is busy.
        earlier = [row.health.origin for row in await store.origins()]
        names = [f"https://{n}-{len(earlier)}.example" for n in range(5)]
        waiting: dict[str, tuple[str, int]] = {}
        for n, late in lanes:
            waiting[(await due(store, names[n], late)).id] = (names[n], NOW + late)
        for late, limit, numbers, per_origin in claims:
            busy = [names[n] for n in numbers]
            free = sorted((at, origin) for origin, at in waiting.values() if origin not in busy)
            assert await store.next_due([*busy, *earlier]) == (free[0][0] if free else None)
            ready = [origin for at, origin in free if at <= NOW + late]
            found = await store.claim_lanes(limit, "t", NOW + late, LEASE, [*busy, *earlier], per_origin)
            origins = [lane.origin for lane in found]
            assert len(found) <= limit
            assert bool(found) == bool(ready and limit)
            assert [lane.due_at for lane in found] == sorted(waiting[lane.run_id][1] for lane in found)
            for origin in set(origins):
                assert origins.count(origin) <= min(ready.count(origin), per_origin or limit)
            for lane in found:
                del waiting[lane.run_id]

    runner.run(scenario())


async def test_next_due_leaves_busy_origins_out(store: Store):
    await due(store, A, 1)
    await due(store, B, 2)
    assert await store.next_due() == NOW + 1
    assert await store.next_due([A]) == NOW + 2
    assert await store.next_due([A, B]) is None


async def test_a_lapsed_lease_at_a_busy_origin_is_left_alone(store: Store):
    await due(store, A)
    await due(store, B)
    assert len(await taken(store)) == 2
    (theirs,) = await store.claim_lanes(9, "other", NOW + 2 * LEASE, LEASE, [A])
    assert theirs.origin == B
    assert await store.claim_lanes(9, "other", NOW + 2 * LEASE, LEASE, [], 0) == []
    assert len(await store.claim_lanes(9, "other", NOW + 2 * LEASE, LEASE, [], 1)) == 1


# --- parking --------------------------------------------------------------------------------


async def test_parked_lanes_are_due_later_as_they_were(store: Store):
    first, second = await due(store, A), await due(store, A)
    lanes = await taken(store)
    await store.park_lanes(lanes, NOW + 9 * SECOND)
    for run, mine in ((first, lanes[0]), (second, lanes[1])):
        assert await one_lane(store, run) == replace(
            mine, due_at=NOW + 9 * SECOND, lease_token=None, lease_until=None
        )
        assert not await store.settle(settlement(mine, event(run, 1)))
    assert await store.next_due() == NOW + 9 * SECOND
    await append(store, first, STEP)
    assert await store.next_due() == NOW + 9 * SECOND
    assert len(await claimed(store, now=NOW + 9 * SECOND)) == 2


async def test_a_parked_lane_without_work_is_not_due(store: Store):
    run, mine = await held(store, STEP)
    written = settlement(mine, event(run, 1))
    assert await store.settle(written)
    await store.park_lanes([written.lane], NOW + SECOND)
    assert ((await one_lane(store, run)).due_at, await store.next_due()) == (None, None)


async def test_only_lanes_that_are_held_are_parked(store: Store):
    run, mine = await held(store, STEP)
    closed_run, closing = await held(store, STEP)
    assert await store.settle(settlement(closing, event(closed_run, 1), GONE))
    await store.park_lanes([replace(mine, lease_token="zombie"), closing], NOW + SECOND)
    await store.park_lanes([], NOW)
    assert await one_lane(store, run) == mine
    assert (await one_lane(store, closed_run)).due_at is None


# --- health ---------------------------------------------------------------------------------

OPEN = Health(
    A,
    Breaker.OPEN,
    failures=11,
    openings=2,
    opened_at=NOW,
    retry_at=NOW + 60 * SECOND,
    paused_until=NOW + 5 * SECOND,
    reason="timeout:connect",
)


async def test_what_is_known_of_an_origin_is_kept(store: Store):
    half = Health(B, Breaker.HALF_OPEN, retry_at=NOW, failures=10, openings=1, opened_at=NOW)
    paused = Health(C, paused_until=NOW + SECOND, reason="status:429")
    for health in (OPEN, half, replace(OPEN, origin=C), paused):
        await store.save_origin(health)
    assert sorted(await store.health(), key=lambda one: one.origin) == [OPEN, half, paused]


async def test_what_only_the_dispatcher_needs_is_not_kept(store: Store):
    await store.save_origin(replace(OPEN, probe=("run", 1), throttled_lane=("run", 1), throttled_at=NOW))
    assert await store.health() == [OPEN]


async def test_an_origin_that_is_well_is_forgotten(store: Store):
    await store.save_origin(OPEN)
    await store.save_origin(Health(A, failures=3))
    await store.save_origin(Health(B))
    assert await store.health() == []
    assert await store.origins() == []


async def test_origins_tell_what_waits_and_what_is_known(store: Store):
    run, mine = await held(store, *[STEP] * 5, url=f"{A}/x")  # 4 wait behind a lane at work
    assert await store.settle(settlement(mine, event(run, 1)))
    retrying, failed = await held(store, STEP, STEP, url=f"{A}/y")
    assert await store.settle(settlement(failed, event(retrying, 1), BUSY, release=True))
    _, done = await held(store, STEP, url=f"{A}/z")
    await delivered(store, done, 1)
    gone, refused = await held(store, STEP, STEP, url=f"{A}/gone")
    assert await store.settle(settlement(refused, event(gone, 1), GONE, release=True))
    crew_only = await running(store, Channel.CREW | Channel.TASK, url=f"{B}/x")
    await append(store, crew_only, STEP, Channel.TASK, STEP, STEP, Channel.CREW)
    await store.save_origin(replace(OPEN, origin=C))
    await store.save_origin(OPEN)
    assert await store.origins() == [
        OriginRow(OPEN, lanes=2, events=6),
        OriginRow(Health(B), lanes=1, events=2),
        OriginRow(replace(OPEN, origin=C), lanes=0, events=0),
    ]
    await store.redeliver(run.id, now=NOW, seq=4)
    assert (await store.origins())[0] == OriginRow(OPEN, lanes=3, events=7)


async def test_a_reset_forgets_and_makes_what_waits_due(store: Store):
    await store.save_origin(OPEN)
    await store.save_origin(replace(OPEN, origin=B))
    made = [await due(store, A, late) for late in range(5)]
    lanes = await taken(store, 4)
    await store.park_lanes(lanes[:3], NOW + 60 * SECOND)
    elsewhere = await due(store, B)
    (other,) = await taken(store, 1, A)
    await store.park_lanes([other], NOW + 60 * SECOND)
    heard = Heard(store)

    assert await store.reset_origin(A, NOW + 9, 2) == 2
    assert await store.health() == [replace(OPEN, origin=B)]
    assert heard.take() == [(Hint.ORIGIN, A)]
    assert await store.reset_origin(A, NOW + 9, 2) == 1
    assert await store.reset_origin(A, NOW + 9) == 0
    found = [(await one_lane(store, run)).due_at for run in made]
    assert found == [NOW + 9] * 3 + [NOW + 3, NOW + 4]
    assert (await one_lane(store, made[3])).lease_token == DISPATCHER
    assert (await one_lane(store, elsewhere)).due_at == NOW + 60 * SECOND
    assert ids(await store.claim_lanes(9, "t", NOW + 9, LEASE)) == [
        made[4].id,
        *(run.id for run in made[:3]),
    ]
