"""Gaps: found when they show, closed when they are filled, whatever comes twice or out of order."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crewcast.webhooks import GapDetector
from crewcast.webhooks.gaps import Gap, Lane, advance
from tests.unit.webhooks.deliveries import delivery


@pytest.fixture
def gaps():
    with contextlib.closing(GapDetector()) as found:
        yield found


def see(gaps, *numbers, run="k", url="/step"):
    return [list(gaps.see(delivery(run=run, lane_seq=n), url)) for n in numbers]


def test_nothing_is_missing_of_what_comes_in_order(gaps):
    assert see(gaps, 1, 2, 3) == [[], [], []]
    assert gaps.missing() == []


def test_what_was_left_out_shows_with_the_next(gaps):
    assert see(gaps, 1, 2, 5) == [[], [], [3, 4]]
    assert gaps.missing("k") == [Gap("k", "/step", range(3, 5))]


def test_the_first_may_be_missing_too(gaps):
    assert see(gaps, 3) == [[1, 2]]


def test_a_repetition_shows_nothing(gaps):
    assert see(gaps, 1, 3, 3, 1) == [[], [2], [], []]
    assert gaps.missing() == [Gap("k", "/step", range(2, 3))]


def test_a_replay_fills_the_gap(gaps):
    see(gaps, 1, 6)
    assert see(gaps, 4) == [[]]
    assert gaps.missing() == [Gap("k", "/step", range(2, 4)), Gap("k", "/step", range(5, 6))]
    see(gaps, 2, 3, 5)
    assert gaps.missing() == []
    assert see(gaps, 7) == [[]]


def test_runs_and_urls_are_numbered_apart(gaps):
    see(gaps, 1, 2)
    assert see(gaps, 1, url="/task") == [[]]
    assert see(gaps, 2, run="other") == [[1]]
    assert gaps.missing("k") == []
    assert gaps.missing("other") == gaps.missing() == [Gap("other", "/step", range(1, 2))]


def test_a_delivery_without_a_number_says_nothing(gaps):
    assert see(gaps, 0, 1) == [[], []]


def test_a_number_that_somebody_made_up_costs_nothing(gaps):
    """It is not signed."""
    assert len(gaps.see(delivery(lane_seq=10**15 - 1), "/step")) == 10**15 - 2


def test_a_file_remembers_and_is_shared(tmp_path):
    path = tmp_path / "gaps.db"
    with contextlib.closing(GapDetector(path)) as one, contextlib.closing(GapDetector(path)) as other:
        assert see(one, 1, 3) == [[], [2]]
        assert see(other, 4) == [[]]
    with contextlib.closing(GapDetector(path)) as later:
        assert see(later, 5, 2) == [[], []]
        assert later.missing() == []


def test_what_was_not_touched_for_long_is_forgotten():
    now = [0.0]
    with contextlib.closing(GapDetector(keep=100, clock=lambda: now[0])) as gaps:
        see(gaps, 2)
        now[0] = 101.0
        see(gaps, 1, run="other")
        assert gaps.missing() == []


@given(st.lists(st.integers(1, 12), max_size=30))
def test_what_is_missing_is_what_never_came(numbers):
    lane, told = Lane(), set()
    for n, number in enumerate(numbers):
        lane, found = advance(lane, number)
        told |= set(found)
        came = set(numbers[: n + 1])
        missing = {number for first, last in lane.missing for number in range(first, last + 1)}
        assert lane.highest == max(came)
        assert missing == set(range(1, max(came))) - came
        assert missing <= told
