import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crewcast.core import ids

times = st.integers(0, 2**48 * 1000 - 1)
random = st.binary(min_size=10, max_size=10)


@given(times, random)
def test_a_run_id_is_a_uuid_of_version_7_with_its_time(now, noise):
    found = uuid.UUID(ids.run_id(now, noise))
    assert (found.version, found.variant) == (7, uuid.RFC_4122)
    assert found.int >> 80 == now // 1000


@given(times, random, times, random)
def test_later_ids_sort_later(now, noise, then, more):
    if now // 1000 < then // 1000:
        assert ids.run_id(now, noise) < ids.run_id(then, more)


@given(random, random)
def test_chance_makes_them_differ(noise, more):
    differ = (int.from_bytes(noise) ^ int.from_bytes(more)) & ~(0xF << 76) & ~(0x3 << 62)
    assert (ids.run_id(0, noise) != ids.run_id(0, more)) == bool(differ)


def test_ten_bytes_are_needed():
    with pytest.raises(ValueError, match="10 random bytes"):
        ids.run_id(0, b"")


def test_an_event_id_is_derived():
    run_id = "01980000-0000-7000-8000-000000000001"
    assert ids.event_id(run_id, 12) == "evt_01980000000070008000000000000001_12"
