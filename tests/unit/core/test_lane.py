"""`settle`, the one rule of a lane: table of outcomes, and what must hold for any sequence of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from crewcast.core.backoff import DAY, HOUR, MINUTE, SECOND, RetryPolicy, wait
from crewcast.core.event import Channel, Event
from crewcast.core.lane import Lane, Verdict, settle
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


outcomes = st.sampled_from(
    [status(200), status(500), status(404), status(429, retry_after=SECOND), Outcome("dns")]
)


@given(st.lists(outcomes, max_size=60), st.floats(0, 1, exclude_max=True))
def test_a_lane_never_goes_back_and_never_skips_without_a_verdict(story, roll):
    lane, now, seq = LANE, NOW, 4
    for outcome in story:
        head = Event("run", seq, Channel.STEP, "step", b"{}", NOW)
        after, verdict = settle(lane, head, outcome, POLICY, now, roll)
        if verdict is Verdict.RETRY:
            assert (after.cursor, after.settled) == (lane.cursor, lane.settled)
            assert after.due_at > now
            now = after.due_at
        else:
            assert (after.cursor, after.settled) == (seq, lane.settled + 1)
            seq += 1
        assert after.tail == lane.tail
        lane = after
