"""The health of an origin: its breaker, its pause, its rate; tables, and what holds for any story."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from crewcast.core.backoff import MINUTE, SECOND
from crewcast.core.origin import (
    Breaker,
    Health,
    HealthPolicy,
    Rate,
    held_until,
    may_send,
    observe,
    take,
)
from crewcast.core.outcome import Outcome

NOW = 1_750_000_000_000_000
POLICY = HealthPolicy()
WELL = Health("https://a.example")
ONE, TWO, THREE = ("run", 1), ("run", 2), ("other", 1)
OK, REFUSED = Outcome("ok", 200), Outcome("refused")


def status(code: int, **fields) -> Outcome:
    return Outcome(f"status:{code}", code, **fields)


def seen(health: Health, *outcomes: Outcome, lane=ONE, now: int = NOW, roll: float = 0.5) -> Health:
    for outcome in outcomes:
        health = observe(health, outcome, lane, now, roll, POLICY)
    return health


def opened(now: int = NOW) -> Health:
    return seen(WELL, *[REFUSED] * 10, now=now)


# --- the breaker ----------------------------------------------------------------------------


def test_ten_failures_in_a_row_open_it_for_half_a_minute():
    nine = seen(WELL, *[REFUSED] * 9)
    assert (nine.state, nine.failures, held_until(nine, NOW), nine.well) == (Breaker.CLOSED, 9, None, True)
    health = seen(nine, status(502))
    assert (health.state, health.opened_at, health.retry_at, health.reason, health.well) == (
        Breaker.OPEN,
        NOW,
        NOW + 30 * SECOND,
        "status:502",
        False,
    )
    assert held_until(health, NOW) == NOW + 30 * SECOND
    assert may_send(health, TWO, NOW + 30 * SECOND - 1, POLICY) == (health, NOW + 30 * SECOND)


@pytest.mark.parametrize("kind", ["dns", "refused", "tls", "timeout:connect", "closed", "protocol"])
def test_what_opens_it_is_the_origins_failure(kind):
    assert seen(WELL, *[Outcome(kind)] * 10).state is Breaker.OPEN
    assert seen(WELL, *[status(500)] * 10).state is Breaker.OPEN


@pytest.mark.parametrize("outcome", [OK, status(302), status(404), status(410), status(429)])
def test_any_answer_below_500_ends_the_row(outcome):
    health = seen(WELL, *[REFUSED] * 9, outcome)
    assert (health.state, health.failures) == (Breaker.CLOSED, 0)
    assert seen(health, *[REFUSED] * 9).state is Breaker.CLOSED


@pytest.mark.parametrize("kind", ["blocked", "stopped"])
def test_what_we_did_not_send_changes_nothing(kind):
    for health in (WELL, seen(WELL, *[REFUSED] * 9), opened()):
        assert observe(health, Outcome(kind), ONE, NOW, 0.5, POLICY) is health


def test_a_working_origin_costs_no_new_value():
    assert observe(WELL, OK, ONE, NOW, 0.5, POLICY) is WELL


def test_one_probe_goes_and_the_others_wait_for_it():
    later = NOW + 30 * SECOND
    health, until = may_send(opened(), TWO, later, POLICY)
    assert (health.state, health.probe, until) == (Breaker.HALF_OPEN, TWO, None)
    assert may_send(health, THREE, later + 1, POLICY) == (health, later + 60 * SECOND)
    closed = seen(health, OK, lane=TWO)
    assert closed == WELL
    assert may_send(closed, THREE, later + 2, POLICY) == (closed, None)


def test_a_refusal_shows_that_the_origin_works_again():
    health, _ = may_send(opened(), TWO, NOW + MINUTE, POLICY)
    assert seen(health, status(401), lane=TWO) == WELL


def test_each_failed_probe_doubles_the_wait_up_to_ten_minutes():
    health, now, waits = opened(), NOW, []
    for _ in range(7):
        waits.append(health.retry_at - now)
        now = health.retry_at
        health, until = may_send(health, ONE, now, POLICY)
        assert until is None
        health = seen(health, REFUSED, now=now)
        assert (health.state, health.opened_at) == (Breaker.OPEN, NOW)
    assert [wait // SECOND for wait in waits] == [30, 60, 120, 240, 480, 600, 600]
    # Once it works, the next outage begins with half a minute again.
    health, _ = may_send(health, ONE, health.retry_at, POLICY)
    again = seen(seen(health, OK), *[REFUSED] * 10)
    assert again.retry_at == NOW + 30 * SECOND


def test_what_was_on_its_way_before_does_not_speak_for_the_probe():
    health, _ = may_send(opened(), TWO, NOW + MINUTE, POLICY)
    assert seen(health, REFUSED, lane=THREE) == health
    assert seen(health, OK, lane=THREE) == WELL
    assert seen(opened(), REFUSED, lane=THREE) == opened()


def test_a_probe_that_is_never_heard_of_is_followed_by_another():
    health, _ = may_send(opened(), TWO, NOW + MINUTE, POLICY)
    assert held_until(health, NOW + 2 * MINUTE - 1) == NOW + 2 * MINUTE
    second, until = may_send(health, THREE, NOW + 2 * MINUTE, POLICY)
    assert (until, second.probe, second.state) == (None, THREE, Breaker.HALF_OPEN)


# --- the pause ------------------------------------------------------------------------------


def test_one_throttled_lane_pauses_itself_alone():
    health = seen(WELL, *[status(429, retry_after=30 * SECOND)] * 5)
    assert (held_until(health, NOW), health.well) == (None, True)


@pytest.mark.parametrize(
    ("code", "asked", "paused"),
    [
        (429, 30 * SECOND, 30 * SECOND),
        (429, 3600 * SECOND, 60 * SECOND),
        (429, None, 5 * SECOND),
        (503, 30 * SECOND, 30 * SECOND),
        (503, 3600 * SECOND, 60 * SECOND),
    ],
)
def test_two_throttled_lanes_within_ten_seconds_pause_the_origin(code, asked, paused):
    health = seen(WELL, status(429), lane=ONE)
    late = seen(health, status(code, retry_after=asked), lane=TWO, now=NOW + 10 * SECOND + 1)
    assert late.paused_until is None
    now = NOW + 10 * SECOND
    health = seen(health, status(code, retry_after=asked), lane=TWO, now=now)
    assert (health.paused_until, health.reason, health.well) == (now + paused, f"status:{code}", False)
    assert may_send(health, THREE, now, POLICY) == (health, now + paused)
    assert may_send(health, THREE, now + paused, POLICY) == (health, None)


def test_503_without_a_wait_is_a_failure_among_others():
    health = seen(seen(WELL, status(503), lane=ONE), status(503), lane=TWO)
    assert (health.paused_until, health.failures) == (None, 2)


def test_a_pause_is_not_shortened_and_ends_by_itself():
    health = seen(seen(WELL, status(429)), status(429, retry_after=40 * SECOND), lane=TWO)
    assert seen(health, status(429, retry_after=SECOND)).paused_until == NOW + 40 * SECOND
    assert seen(health, OK).paused_until == NOW + 40 * SECOND
    after = seen(health, OK, now=NOW + 40 * SECOND)
    assert (after.paused_until, after.reason, after.well) == (None, None, True)


def test_a_pause_holds_a_breaker_that_would_let_a_probe_through():
    health = replace(opened(), paused_until=NOW + 45 * SECOND)
    assert may_send(health, ONE, NOW + 40 * SECOND, POLICY) == (health, NOW + 45 * SECOND)
    probing, until = may_send(health, ONE, NOW + 45 * SECOND, POLICY)
    assert (probing.state, until) == (Breaker.HALF_OPEN, None)


# --- any story ------------------------------------------------------------------------------

outcomes = st.sampled_from(
    [OK, status(404), status(500), REFUSED, Outcome("dns"), Outcome("blocked"), Outcome("stopped")]
    + [status(code, retry_after=wait) for code in (429, 503) for wait in (None, SECOND, 999 * MINUTE)]
)
rolls = st.floats(0, 1, exclude_max=True)
moves = st.lists(
    st.tuples(st.integers(0, 90 * SECOND), st.sampled_from([ONE, TWO, THREE]), st.none() | outcomes, rolls),
    max_size=80,
)
LONGEST = 12 * MINUTE  # ten minutes and their jitter


@given(moves)
def test_the_breaker_always_lets_a_probe_through_again(story):
    """Whatever is heard, or never heard: within twelve minutes somebody may send."""
    health, now = WELL, NOW
    for later, lane, outcome, roll in story:
        now += later
        if outcome is None:
            health, until = may_send(health, lane, now, POLICY)
            assert until == held_until(health, now) or until is None
        else:
            health = observe(health, outcome, lane, now, roll, POLICY)
        until = held_until(health, now)
        assert until is None or now < until <= now + LONGEST
        _, free = may_send(health, TWO, until or now, POLICY)
        assert free is None


@given(moves)
def test_while_it_is_not_closed_one_probe_at_a_time_is_let_through(story):
    health, now = WELL, NOW
    probed_at = None
    for later, lane, outcome, roll in story:
        now += later
        if outcome is None:
            before = health
            health, until = may_send(health, lane, now, POLICY)
            if until is None and before.state is not Breaker.CLOSED:
                assert health.probe == lane
                assert before.state is Breaker.OPEN or now - probed_at >= POLICY.probe_patience
                probed_at = now
            assert (health is before) == (until is not None or before.state is Breaker.CLOSED)
        else:
            health = observe(health, outcome, lane, now, roll, POLICY)
        # What the store's schema holds too.
        assert (health.state is Breaker.CLOSED) == (health.retry_at is None) == (health.opened_at is None)
        assert (health.probe is not None) == (health.state is Breaker.HALF_OPEN)


@given(moves)
def test_it_opens_only_after_ten_failures_in_a_row(story):
    health, row = WELL, 0
    for _, lane, outcome, roll in story:
        if outcome is None or outcome.ours:
            continue
        row = row + 1 if outcome.broken else 0
        health = observe(health, outcome, lane, NOW, roll, POLICY)
        assert (health.state is Breaker.OPEN) == (row >= 10)


# --- the rate -------------------------------------------------------------------------------


def taken(rate: Rate, *moments: int) -> list[int]:
    found = []
    for now in moments:
        rate, at = take(rate, NOW + now)
        found.append(at - NOW)
    return found


def test_tokens_come_evenly():
    assert taken(Rate.per_second(10), 0, 0, 0) == [0, 100_000, 200_000]
    assert taken(Rate.per_second(0.5), 0, 0) == [0, 2 * SECOND]
    assert taken(Rate.per_second(10), 0, 5 * SECOND, 5 * SECOND) == [0, 5 * SECOND, 5 * SECOND + 100_000]


def test_a_burst_may_go_at_once_and_fills_up_again():
    rate = Rate.per_second(10, burst=3)
    assert taken(rate, 0, 0, 0, 0, 0) == [0, 0, 0, 100_000, 200_000]
    assert taken(rate, 0, 0, 0, 200_000, 200_000, 200_000) == [0, 0, 0, 200_000, 200_000, 300_000]


@pytest.mark.parametrize(("events", "burst"), [(0, 1), (-1, 1), (5, 0)])
def test_a_rate_that_lets_nothing_through_is_a_mistake(events, burst):
    with pytest.raises(ValueError, match="nothing"):
        Rate.per_second(events, burst)


@given(
    st.integers(1, 50),
    st.integers(1, 9),
    st.lists(st.integers(0, 400_000), max_size=60),
)
def test_no_stretch_of_time_gets_more_than_the_burst_and_what_came_in(events, burst, waits):
    rate, now, used = Rate.per_second(events, burst), NOW, []
    for later in waits:
        now += later
        rate, at = take(rate, now)
        assert at >= now
        used.append(at)
    assert used == sorted(used)
    for first in range(len(used)):
        for last in range(first, len(used)):
            assert last - first + 1 <= burst + (used[last] - used[first]) // rate.every
