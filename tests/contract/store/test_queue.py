"""The queue: by priority, then age, within the limits of a crew in this call and of a token in the store."""

import asyncio

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from crewcast.core import run as runs
from crewcast.core.run import Run
from crewcast.store.protocol import Store
from tests.contract.store.world import LEASE, NOW, WORKER, decided, new_run, paused


async def put(store: Store, crew: str = "a", token: str = "", priority: int = 0) -> Run:
    run = replace(new_run(crew), token=token, priority=priority)
    await store.create_run(run, [], None, NOW)
    return run


async def take(store: Store, *crews: str, limit: int = 99, **limits) -> list[str]:
    claimed = await store.claim_runs(crews, limit, WORKER, NOW, LEASE, **limits)
    for run in claimed:
        assert run == await store.run(run.id)
    return [run.id for run in claimed]


async def test_higher_priorities_go_first_then_the_oldest(store: Store):
    made = [
        await put(store, crew, token, priority)
        for crew, token, priority in [
            ("a", "t", 0),
            ("b", "t", 5),
            ("a", "u", -1),
            ("b", "u", 0),
            ("a", "t", 5),
        ]
    ]
    order = [made[n].id for n in (1, 4, 0, 3, 2)]
    assert await take(store, "a", "b", limit=2) == order[:2]
    assert await take(store, "a", "b") == order[2:]


async def test_what_a_run_may_do_is_claimed_with_it(store: Store):
    run = replace(new_run("a"), priority=2, max_attempts=3, timeout=9, token="t")
    await store.create_run(run, [], None, NOW)
    assert await store.run(run.id) == run
    (claimed,) = await store.claim_runs(["a"], 9, WORKER, NOW + 5, LEASE)
    assert claimed == runs.claim(run, WORKER, NOW + 5, LEASE)


async def test_a_crew_gives_as_many_as_it_may_in_this_call(store: Store):
    a = [(await put(store, "a")).id for _ in range(3)]
    b = [(await put(store, "b")).id for _ in range(2)]
    assert await take(store, "a", "b", per_crew={"a": 1}) == [a[0], *b]
    assert await take(store, "a", "b", per_crew={"a": 0}) == []
    assert await take(store, "a", "b", per_crew={"c": 0, "a": 1}) == [a[1]]
    assert await take(store, "a", limit=0) == []


async def test_a_token_has_as_many_running_as_it_may_in_the_whole_store(store: Store):
    mine = [(await put(store, "ab"[n % 2], "t")).id for n in range(5)]
    theirs = (await put(store, "a", "u")).id
    assert await take(store, "a", limit=1, per_token=2) == [mine[0]]
    assert await take(store, "b", per_token=2) == [mine[1]]
    assert await take(store, "a", "b", per_token=2) == [theirs]
    run = await store.run(mine[0])
    assert run is not None
    assert await store.append(runs.end(run, runs.RunState.COMPLETED, NOW), [], WORKER)
    assert await take(store, "a", "b", per_token=2) == [mine[2]]
    assert await take(store, "a", "b", per_token=0) == []
    assert await take(store, "a", "b") == mine[3:]


async def test_a_run_that_goes_on_keeps_its_place(store: Store):
    first = await put(store)
    (run,) = await store.claim_runs(["a"], 1, WORKER, NOW, LEASE)
    second = await put(store)
    await decided(store, *(await paused(store, run)))
    assert await take(store, "a") == [first.id, second.id]


async def test_no_two_claims_exceed_a_token(store: Store):
    for _ in range(20):
        await put(store, "a", "t")
        await put(store, "b", "t")
    claims = await asyncio.gather(
        *(store.claim_runs(["a", "b"], 3, f"w{n}", NOW, LEASE, per_token=7) for n in range(10))
    )
    taken = [run.id for claim in claims for run in claim]
    assert len(taken) == len(set(taken)) == 7


queued = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from("tu"), st.integers(-1, 1)), min_size=1, max_size=12
)
limits = st.fixed_dictionaries(
    {
        "limit": st.integers(0, 6),
        "per_crew": st.dictionaries(st.sampled_from("abc"), st.integers(0, 3)),
        "per_token": st.none() | st.integers(0, 5),
    }
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(queued, st.lists(st.tuples(st.sets(st.sampled_from("abc")), limits), min_size=1, max_size=4))
def test_any_limits_take_the_first_that_fit(store: Store, runner, made, claims):
    """The model: along the whole queue, whatever still fits is taken."""

    async def scenario() -> None:
        mark = new_run().id[-8:]  # names of this example's own
        waiting = [await put(store, crew + mark, token + mark, priority) for crew, token, priority in made]
        running: dict[str, int] = {}
        for crews, given_limits in claims:
            limit, per_token = given_limits["limit"], given_limits["per_token"]
            per_crew = {crew + mark: most for crew, most in given_limits["per_crew"].items()}
            expected: list[Run] = []
            for run in sorted(waiting, key=lambda run: -run.priority):
                of_crew = sum(one.crew == run.crew for one in expected)
                fits = len(expected) < limit and run.crew[0] in crews
                fits = fits and of_crew < per_crew.get(run.crew, limit)
                if fits and (per_token is None or running.get(run.token, 0) < per_token):
                    expected.append(run)
                    running[run.token] = running.get(run.token, 0) + 1
            names = [crew + mark for crew in crews]
            found = await take(store, *names, limit=limit, per_crew=per_crew, per_token=per_token)
            assert found == [run.id for run in expected]
            waiting = [run for run in waiting if run not in expected]

    runner.run(scenario())
