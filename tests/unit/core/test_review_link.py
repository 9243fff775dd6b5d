"""Links to reviews: made and read by one key, and by no other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crewcast.core.review_link import PATH, ReviewLinks

RUN = "01a20bb3-f86a-76d4-9da0-7cc97b4db906"
KEY = bytes(32)
LINKS = ReviewLinks(KEY, "https://crews.example/base/")


def test_a_link_leads_to_its_review():
    link = LINKS.url(RUN, 3)
    assert link is not None
    assert link.startswith("https://crews.example/base" + PATH)
    assert LINKS.read(link.rpartition("/")[2]) == (RUN, 3)


def test_without_a_place_where_people_reach_the_server_there_are_no_links():
    assert ReviewLinks(KEY, None).url(RUN, 1) is None


def test_a_link_of_another_key_is_none():
    assert ReviewLinks(bytes([1]) * 32, None).read(LINKS.token(RUN, 1)) is None


@given(st.data())
def test_no_other_text_is_a_link(data: st.DataObject):
    token = LINKS.token(RUN, 1)
    at = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from("ABCXYZabcxyz0189-_+/=~ é"))
    changed = token[:at] + other + token[at + 1 :]
    assert LINKS.read(changed) == ((RUN, 1) if changed == token else None)


@pytest.mark.parametrize("text", ["", "=", "A", "A" * 54, "A" * 5000, "\0", LINKS.token(RUN, 1) + "="])
def test_what_is_no_token(text: str):
    assert LINKS.read(text) is None
