"""A redelivery's body: what it means, and what it cannot mean."""

import json

import pytest

from crewcast.contract import redelivery
from crewcast.contract.problem import Problem
from crewcast.contract.redelivery import OfOrigin, OfRun

BEARER = {"strategy": "bearer", "token": "geheim"}
ORIGIN = {"origin": "https://hooks.example.com", "since": "1970-01-01T00:00:01Z", "dead_only": True}


def parse(body, check_url=lambda _: None):
    return redelivery.parse(json.dumps(body).encode(), check_url)


def test_a_run_alone_means_all_of_it():
    assert parse({"kickoff_id": "k"}) == OfRun("k", None, None, dead_only=False, where=None)


def test_a_run_may_be_narrowed_and_null_narrows_nothing():
    body = {"kickoff_id": "k", "lane": 2, "seq": 3.0, "dead_only": True, "url": None, "authentication": None}
    assert parse(body) == OfRun("k", 2, 3, dead_only=True, where=None)
    assert parse({"kickoff_id": "k", "lane": None, "seq": None, "dead_only": None}) == parse(
        {"kickoff_id": "k"}
    )


def test_another_url_has_its_own_origin_and_authentication():
    where = parse(
        {"kickoff_id": "k", "url": "https://Other.example:8443/x?y", "authentication": BEARER}
    ).where
    assert (where.url, where.origin) == ("https://Other.example:8443/x?y", "https://other.example:8443")
    assert where.auth.headers == (("authorization", "Bearer geheim"),)


def test_an_origin_is_that_of_a_longer_url_and_goes_on_where_a_page_ended():
    asked = parse(ORIGIN | {"origin": "https://Hooks.example.com:443/x"})
    assert asked == OfOrigin("https://hooks.example.com", 1_000_000, None, None)
    place = ("https://hooks.example.com", 12, 3)
    assert parse(ORIGIN | {"after": redelivery.next_place(place)}).after == place


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "kickoff_id"),
        ({"kickoff_id": 7}, "kickoff_id"),
        ({"kickoff_id": None}, "kickoff_id"),
        ({"kickoff_id": "k", "lane": 0}, "lane"),
        ({"kickoff_id": "k", "lane": True}, "lane"),
        ({"kickoff_id": "k", "lane": "1"}, "lane"),
        ({"kickoff_id": "k", "seq": 1.5}, "seq"),
        ({"kickoff_id": "k", "seq": 10**15}, "seq"),
        ({"kickoff_id": "k", "dead_only": 1}, "dead_only"),
        ({"kickoff_id": "k", "deadOnly": True}, "deadOnly"),
        ({"kickoff_id": "k", "origin": "https://hooks.example.com"}, "origin"),
        ({"kickoff_id": "k", "url": 7}, "url"),
        ({"kickoff_id": "k", "url": "ftp://x"}, "url"),
        ({"kickoff_id": "k", "authentication": BEARER}, "authentication"),
        ({"kickoff_id": "k", "url": "https://x.example", "authentication": {"strategy": "x"}}, "authentication.strategy"),
        (ORIGIN | {"origin": 7}, "origin"),
        (ORIGIN | {"origin": "hooks.example.com"}, "origin"),
        (ORIGIN | {"since": 7}, "since"),
        (ORIGIN | {"since": "yesterday"}, "since"),
        ({name: value for name, value in ORIGIN.items() if name != "since"}, "since"),
        (ORIGIN | {"dead_only": False}, "dead_only"),
        ({name: value for name, value in ORIGIN.items() if name != "dead_only"}, "dead_only"),
        (ORIGIN | {"lane": 1}, "lane"),
        (ORIGIN | {"after": "elsewhere"}, "after"),
        (ORIGIN | {"after": 7}, "after"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_422_with_its_field(body, field):
    with pytest.raises(Problem) as caught:
        parse(body)
    assert (caught.value.status, caught.value.body["details"]) == (422, {"field": field})
    assert "geheim" not in caught.value.body["message"]


def test_another_url_is_asked_of_egress():
    with pytest.raises(Problem, match="url is not for us"):
        parse({"kickoff_id": "k", "url": "https://x.example"}, lambda target: "is not for us")
