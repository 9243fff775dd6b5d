"""`settle`, the one rule of a lane: table of outcomes, and what must hold for any sequence of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from crewcast.core.backoff import DAY, HOUR, MINUTE, SECOND, RetryPolicy, wait
from crewcast.core.event import Channel, Event
from crewcast.core.lane import Lane, Verdict, settle, split
from crewcast.core.outcome import Outcome

NOW = 1_750_000_000_000_000
POLICY = RetryPolicy()
LANE = Lane("run", 1, "https://a.example/x", "https://a.example", Channel.STEP, cursor=3, tail=9, settled=2)
HEAD = Event("run", 5, Channel.STEP, "step", b"{}", NOW)


def status(code: int, **fields) -> Outcome:
    return Outcome("ok" if code < 300 else f"status:{code}", code, **fields)


@pytest.mark.parametrize("code", [200, 201, 204, 299])
def test_any_2xx_moves_the_cursor(code):
    lane, verdict = settle(replace(LANE, tries=2), HEAD, status(code), POLICY, NOW, 0.5)
    assert verdict is Verdict.ACCEPTED
    assert (lane.cursor, lane.settled, lane.tries, lane.head_lane_seq) == (5, 3, 0, 4)


@pytest.mark.parametrize("outcome", [status(301), status(399), status(500), status(100), Outcome("refused")])
def test_everything_else_is_a_failure_that_keeps_the_head(outcome):
    lane, verdict = settle(LANE, HEAD, outcome, POLICY, NOW, 0.5)
    assert verdict is Verdict.RETRY
    assert (lane.cursor, lane.settled, lane.tries, lane.due_at) == (3, 2, 1, NOW + 5 * SECOND)


def test_gone_closes_the_lane():
    lane, verdict = settle(LANE, HEAD, status(410), POLICY, NOW, 0.5)
    assert (verdict, lane.closed, lane.due_at, lane.cursor) == (Verdict.CLOSED, "gone", None, 5)


@pytest.mark.parametrize("code", [400, 401, 403, 404, 413, 422])
def test_settled_refusals_are_given_up_after_about_ten_minutes(code):
    lane, now, tries = LANE, NOW, 0
    while True:
        lane, verdict = settle(lane, HEAD, status(code), POLICY, now, 0.5)
        tries += 1
        if verdict is Verdict.GAVE_UP:
            break
        now = lane.due_at
    assert tries == 5
    assert 9 * MINUTE < now - NOW < 11 * MINUTE
    assert (lane.cursor, lane.tries) == (5, 0)


def test_other_failures_are_given_up_at_the_age_of_three_days():
    lane, now = LANE, NOW
    while True:
        lane, verdict = settle(lane, HEAD, status(503), POLICY, now, 0.5)
        if verdict is Verdict.GAVE_UP:
            break
        assert lane.due_at > now
        now = lane.due_at
    assert 3 * DAY <= now - NOW < 4 * DAY


def test_an_old_event_still_gets_an_attempt_of_its_own():
    late = NOW + 10 * DAY
    lane, verdict = settle(LANE, HEAD, status(200), POLICY, late, 0.5)
    assert verdict is Verdict.ACCEPTED
    _, verdict = settle(lane, replace(HEAD, seq=6), status(500), POLICY, late, 0.5)
    assert verdict is Verdict.GAVE_UP


@pytest.mark.parametrize(
    ("asked", "waited"), [(120 * SECOND, 120 * SECOND), (1 * SECOND, 5 * SECOND), (9 * HOUR, HOUR)]
)
def test_retry_after_can_lengthen_a_wait_up_to_an_hour(asked, waited):
    lane, _ = settle(LANE, HEAD, status(429, retry_after=asked), POLICY, NOW, 0.5)
    assert lane.due_at == NOW + waited


@given(st.integers(1, 30), st.floats(0, 1, exclude_max=True))
def test_jitter_stays_within_a_fifth(tries, roll):
    base = POLICY.schedule[min(tries, len(POLICY.schedule)) - 1]
    assert 0.8 * base - 1 <= wait(POLICY.schedule, tries, roll) <= 1.2 * base


# --- two schedules --------------------------------------------------------------------------


def after(story: list[Outcome], lane: Lane = LANE, head: Event = HEAD) -> tuple[Lane, Verdict, int]:
    """The lane, the last verdict and the time after these outcomes, each at the moment it was due."""
    now, verdict = NOW, Verdict.RETRY
    for outcome in story:
        assert verdict is Verdict.RETRY
        now = now if lane.due_at is None else max(now, lane.due_at)
        lane, verdict = settle(lane, head, outcome, POLICY, now, 0.5)
    return lane, verdict, now


def test_a_refusal_after_an_outage_begins_the_short_schedule():
    lane, verdict, now = after([status(503)] * 5 + [status(404)])
    assert verdict is Verdict.RETRY
    assert (lane.tries, lane.refusals, lane.due_at) == (6, 1, now + 5 * SECOND)
    lane, verdict, _ = after([status(503)] * 5 + [status(404)] * 5)
    assert (verdict, lane.tries, lane.refusals) == (Verdict.GAVE_UP, 0, 0)


def test_an_outage_after_refusals_begins_the_long_schedule():
    lane, verdict, now = after([status(404)] * 4 + [Outcome("refused")])
    assert (verdict, lane.tries, lane.refusals, lane.due_at) == (Verdict.RETRY, 5, 4, now + 5 * SECOND)
    lane, verdict, now = after([status(404)] * 4 + [Outcome("refused")] * 2)
    assert lane.due_at == now + 5 * MINUTE


def test_each_schedule_counts_its_own_failures_in_any_order():
    lane, verdict, now = after([status(404), status(500), status(404), status(500), status(404)])
    assert (verdict, lane.refusals, lane.due_at) == (Verdict.RETRY, 3, now + 2 * MINUTE)
    lane, _, now = after([status(404), status(500), status(404), status(500), status(404), status(500)])
    assert lane.due_at == now + 30 * MINUTE


def test_what_is_sent_again_ages_from_when_it_was_asked_for():
    late = NOW + 30 * DAY
    replay = replace(LANE, replay_of=1, asked_at=late)
    lane, verdict = settle(replay, HEAD, status(500), POLICY, late + HOUR, 0.5)
    assert (verdict, lane.due_at) == (Verdict.RETRY, late + HOUR + 5 * SECOND)
    _, verdict = settle(replay, HEAD, status(500), POLICY, late + 3 * DAY, 0.5)
    assert verdict is Verdict.GAVE_UP
    # An event that came after the question ages by itself.
    young = replace(HEAD, at=late + DAY)
    _, verdict = settle(replay, young, status(500), POLICY, late + 3 * DAY, 0.5)
    assert verdict is Verdict.RETRY


# --- lanes without order --------------------------------------------------------------------


def test_an_event_leaves_its_lane_with_its_tries_and_its_number():
    lane = replace(LANE, ordered=False, lease_token="d", lease_until=NOW, auth=b"sealed", total=7)
    retried, _ = settle(lane, HEAD, status(404), POLICY, NOW, 0.5)
    rest, apart = split(lane, HEAD, retried)
    assert rest == replace(lane, cursor=5, settled=3)
    assert apart == Lane(
        "run",
        0,
        lane.url,
        lane.origin,
        lane.channels,
        cursor=4,
        tail=5,
        settled=2,
        tries=1,
        refusals=1,
        due_at=NOW + 5 * SECOND,
        auth=b"sealed",
        split_of=1,
        total=3,
    )
    assert apart.head_lane_seq == lane.head_lane_seq
    assert (rest.fixed, apart.fixed) == (False, True)


def test_an_event_that_leaves_a_replay_stays_a_replay():
    lane = replace(LANE, number=4, ordered=False, replay_of=2, dead_only=True, asked_at=NOW)
    rest, apart = split(lane, HEAD, settle(lane, HEAD, status(500), POLICY, NOW, 0.5)[0])
    assert (apart.replay_of, apart.split_of, apart.dead_only, apart.asked_at) == (2, 4, True, NOW)
    assert rest.fixed


# --- any story ------------------------------------------------------------------------------

outcomes = st.sampled_from(
    [
        status(200),
        status(302),
        status(404),
        status(413),
        status(429, retry_after=SECOND),
        status(500),
        status(503, retry_after=9 * DAY),
        Outcome("dns"),
        Outcome("timeout:response"),
        Outcome("blocked"),
    ]
)
failures = outcomes.filter(lambda outcome: not outcome.accepted)
rolls = st.floats(0, 1, exclude_max=True)
ages = st.integers(0, 10 * DAY)


@given(st.lists(st.tuples(outcomes | st.just(status(410)), rolls, ages), max_size=60))
def test_a_lane_never_goes_back_and_never_skips_without_a_verdict(story):
    lane, now, seq = LANE, NOW, 4
    for outcome, roll, delay in story:
        head = Event("run", seq, Channel.STEP, "step", b"{}", NOW)
        after, verdict = settle(lane, head, outcome, POLICY, now, roll)
        if verdict is Verdict.RETRY:
            assert (after.cursor, after.settled) == (lane.cursor, lane.settled)
            assert (after.tries, lane.refusals <= after.refusals <= after.tries) == (lane.tries + 1, True)
            assert now < after.due_at <= now + 24 * HOUR
            now = after.due_at + delay
        else:
            assert (after.cursor, after.settled, after.tries, after.refusals) == (seq, lane.settled + 1, 0, 0)
            seq += 1
        assert (after.tail, after.total) == (lane.tail, lane.total)
        assert (after.closed is None) == (verdict is not Verdict.CLOSED)
        if verdict is Verdict.CLOSED:
            break
        lane = after


@given(st.data(), st.integers(-10 * DAY, 10 * DAY), st.none() | st.integers(0, 9 * DAY))
def test_a_lane_always_ends(data, age, asked):
    """Whatever its subscriber answers: after the last verdict no wait is left, and no wait is endless."""
    lane = replace(LANE, asked_at=None if asked is None else NOW - asked)
    head = replace(HEAD, at=NOW - age)
    born = max(head.at, lane.asked_at or 0)
    now, attempts, verdict = NOW, 0, Verdict.RETRY
    while verdict is Verdict.RETRY:
        outcome, roll = data.draw(failures), data.draw(rolls)
        lane, verdict = settle(lane, head, outcome, POLICY, now, roll)
        attempts += 1
        if verdict is Verdict.RETRY:
            # One more refusal than the short schedule has waits ends it, or the age does.
            assert lane.refusals <= len(POLICY.short_schedule)
            assert outcome.refused_for_good or now < born + POLICY.give_up_after
            now = lane.due_at
    # Each failure of the long schedule waits at least 4 s, and from the second on more: within the time that
    # is left there are few of them.
    longest = max(0, born + POLICY.give_up_after - NOW)
    assert attempts <= 2 + len(POLICY.short_schedule) + len(POLICY.schedule) + longest // (16 * HOUR)


@given(failures, rolls, st.integers(0, 100 * DAY), st.none() | st.integers(0, 100 * DAY))
def test_no_event_is_given_up_before_an_attempt_of_its_own(outcome, roll, age, asked):
    """`settle` is asked only after an attempt; what it gives up has had one, and its successor has had none."""
    lane = replace(LANE, asked_at=None if asked is None else NOW - asked)
    after, verdict = settle(lane, replace(HEAD, at=NOW - age), outcome, POLICY, NOW, roll)
    if verdict is Verdict.GAVE_UP:
        assert (after.cursor, after.tries, after.closed) == (HEAD.seq, 0, None)
        assert age >= POLICY.give_up_after
    else:
        assert (after.cursor, after.tries) == (lane.cursor, 1)
    assert (
        settle(after, replace(HEAD, seq=6, at=NOW - age), status(200), POLICY, NOW, roll)[1]
        is Verdict.ACCEPTED
    )


@given(st.integers(1, 60), st.lists(st.integers(1, DAY), min_size=1, max_size=9), rolls)
def test_the_schedule_repeats_its_last_step(tries, schedule, roll):
    base = schedule[min(tries, len(schedule)) - 1]
    found = wait(tuple(schedule), tries, roll)
    assert max(1, int(base * 0.8) - 1) <= found <= base * 1.2
