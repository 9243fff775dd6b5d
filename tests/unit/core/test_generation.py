"""Which secrets sign at a moment, whatever was rotated before."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crewcast.core.generation import EVERY_ORIGIN, MOST_AT_ONCE, Generation, Rotation, Rotations, signing

A, B = "https://a.example", "https://b.example"


def numbers(rotations: Rotations, origin: str, now: int) -> list[int]:
    return [one.number for one in signing(rotations.generations(origin), now)]


def test_without_a_rotation_the_first_generation_signs_for_ever():
    assert Rotations().generations(A) == [Generation(0, None, None)]
    assert numbers(Rotations(), A, 1 << 60) == [0]


def test_an_older_one_signs_beside_the_newest_until_its_time_is_over():
    rotations = Rotations([Rotation(1, A, at=100, until=150)])
    assert rotations.generations(A) == [Generation(1, 100, None), Generation(0, None, 150)]
    assert numbers(rotations, A, 149) == [1, 0]
    assert numbers(rotations, A, 150) == [1]


def test_other_origins_keep_theirs():
    rotations = Rotations([Rotation(1, A, 100, 150)])
    assert numbers(rotations, B, 120) == [0]
    assert numbers(rotations, EVERY_ORIGIN, 120) == [0]


def test_a_rotation_of_all_goes_on_from_what_each_origin_had():
    rotations = Rotations([Rotation(1, A, 100, 150), Rotation(2, EVERY_ORIGIN, 120, 220)])
    assert numbers(rotations, A, 130) == [2, 1, 0]
    assert numbers(rotations, A, 160) == [2, 1]
    assert numbers(rotations, B, 130) == [2, 0]
    assert numbers(rotations, A, 220) == numbers(rotations, B, 220) == [2]


def test_a_rotation_without_an_overlap_ends_all_that_is_older():
    rotations = Rotations([Rotation(1, A, 100, 10_000), Rotation(2, A, 200, 200)])
    assert numbers(rotations, A, 200) == [2]
    assert [one.until for one in rotations.generations(A)] == [None, 200, 200]


def test_a_longer_overlap_brings_nothing_back():
    rotations = Rotations([Rotation(1, A, 100, 110), Rotation(2, A, 200, 9_000)])
    assert numbers(rotations, A, 300) == [2, 1]


def test_the_newest_signs_when_a_clock_was_set_back():
    rotations = Rotations([Rotation(1, A, 100, 150)])
    assert numbers(rotations, A, 20) == [1, 0]
    again = rotations.next(A, 30, 40)
    assert again == Rotation(2, A, 30, 40)
    assert numbers(Rotations([*rotations.listed, again]), A, 40) == [2]


def test_numbers_grow_over_all_origins():
    rotations = Rotations([Rotation(7, B, 1, 2), Rotation(3, A, 1, 2)])
    assert rotations.next(A, 10, 20) == Rotation(8, A, 10, 20)
    assert Rotations().next(EVERY_ORIGIN, 10, 10) == Rotation(1, EVERY_ORIGIN, 10, 10)


def test_an_overlap_cannot_end_before_it_begins():
    with pytest.raises(ValueError, match="before it begins"):
        Rotations().next(A, 10, 9)


def test_there_are_never_too_many_at_once():
    rotations = Rotations()
    for n in range(1, MOST_AT_ONCE):
        new = rotations.next(A, n, 1000)
        assert new is not None
        rotations = Rotations([*rotations.listed, new])
    assert len(numbers(rotations, A, 10)) == MOST_AT_ONCE
    assert rotations.next(A, 10, 1000) is None
    assert rotations.next(EVERY_ORIGIN, 10, 1000) is None, "this one has enough already"
    assert rotations.next(B, 10, 1000) is not None
    assert rotations.next(A, 10, 10) is not None, "this ends the older ones"
    assert rotations.next(A, 1000, 2000) is not None, "their time is over"


ORIGINS = st.sampled_from([A, B, EVERY_ORIGIN])


@given(
    st.lists(st.tuples(ORIGINS, st.integers(0, 50), st.integers(0, 200)), max_size=12), st.integers(0, 900)
)
def test_whatever_is_rotated_the_newest_signs_and_nothing_ended_comes_back(steps, later):
    rotations, now = Rotations(), 0
    for origin, pause, overlap in steps:
        now += pause
        before = {one: numbers(rotations, one, now) for one in (A, B)}
        new = rotations.next(origin, now, now + overlap)
        if new is None:
            continue
        rotations = Rotations([*rotations.listed, new])
        for one in (A, B):
            found = numbers(rotations, one, now)
            meant = origin in (one, EVERY_ORIGIN)
            assert found[0] == (new.number if meant else before[one][0])
            assert found[meant:] == (before[one] if not meant or overlap else [])
            assert len(found) <= MOST_AT_ONCE
    for one in (A, B):
        found = numbers(rotations, one, now + later)
        assert found == sorted(found, reverse=True)
        assert set(found) <= set(numbers(rotations, one, now))
        assert found
