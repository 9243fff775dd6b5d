"""What a kickoff says of limits, reviews and of whom it asks."""

import json

import pytest

from crewcast.contract import terms
from crewcast.contract.kickoff import parse_kickoff
from crewcast.contract.problem import Problem
from crewcast.contract.terms import Limits, ReviewTerms, Terms
from crewcast.core.backoff import DAY, HOUR, SECOND
from crewcast.core.event import Channel
from crewcast.core.review import Default

A, B = "https://a.example/hook", "https://b.example/hook"


def parse(**fields):
    return parse_kickoff(json.dumps({"inputs": {}, **fields}).encode(), None, lambda target: None)


def refused(**fields) -> str:
    with pytest.raises(Problem) as caught:
        parse(**fields)
    assert caught.value.status == 422
    field: str = caught.value.body["details"]["field"]
    return field


def test_a_kickoff_that_says_nothing_is_as_the_server_is_set():
    found = parse()
    assert (found.terms, found.priority, found.timeout, found.max_attempts) == (Terms(), 0, None, None)


def test_limits_are_counts_and_seconds():
    found = parse(limits={"tokens": 1000, "llm_calls": 3, "tool_calls": 2, "seconds": 1.5})
    assert found.terms.limits == Limits(tokens=1000, llm_calls=3, tool_calls=2, seconds=1.5)
    assert found.terms.limits.counted == {"tokens": 1000, "llm_calls": 3, "tool_calls": 2}
    assert parse(limits={"seconds": 1}).terms.limits.counted is None


@pytest.mark.parametrize(
    ("timeout", "seconds", "expected"),
    [(5, None, 5), (None, 7, 7), (5, 7, 5), (9.5, 7, 7), (None, None, None)],
)
def test_the_shorter_of_two_times_counts(timeout, seconds, expected):
    found = parse(timeout=timeout, limits={"seconds": seconds})
    assert found.timeout == (None if expected is None else expected * SECOND)


def test_a_review_has_a_time_and_what_comes_of_it():
    found = parse(
        review={"timeout": "2d", "default": "approve", "remind_every": 3600, "pass_feedback": False}
    )
    assert found.terms.review == ReviewTerms(2 * DAY, Default.APPROVE, HOUR, pass_feedback=False)
    assert parse(review={"timeout": 60}).terms.review == ReviewTerms(60 * SECOND, Default.FAIL)
    assert parse(review={}).terms.review == ReviewTerms()


def test_terms_come_back_from_the_store_as_they_were():
    import msgspec

    found = parse(
        limits={"tokens": 5}, review={"timeout": "1h", "default": "reject"}, webhooks={"url": A}
    ).terms
    assert terms.of_run(msgspec.json.encode(found)) == found
    assert terms.of_run(None) == Terms()
    assert terms.of_run(b'{"humanInputWebhookUrl": "kept by a release before"}') == Terms()


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"limits": []}, "limits"),
        ({"limits": {"token": 1}}, "limits.token"),
        ({"limits": {"tokens": 0}}, "limits.tokens"),
        ({"limits": {"tokens": True}}, "limits.tokens"),
        ({"limits": {"llm_calls": 1.5}}, "limits.llm_calls"),
        ({"limits": {"seconds": 0}}, "limits.seconds"),
        ({"limits": {"seconds": 1e12}}, "limits.seconds"),
        ({"timeout": -1}, "timeout"),
        ({"timeout": "1h"}, "timeout"),
        ({"priority": 101}, "priority"),
        ({"priority": "high"}, "priority"),
        ({"max_attempts": 0}, "max_attempts"),
        ({"review": "1h"}, "review"),
        ({"review": {"timeout": "soon"}}, "review.timeout"),
        ({"review": {"timeout": "0s"}}, "review.timeout"),
        ({"review": {"timeout": 60, "default": "maybe"}}, "review.default"),
        ({"review": {"default": "approve"}}, "review.default"),
        ({"review": {"pass_feedback": "no"}}, "review.pass_feedback"),
        ({"review": {"deadline": 1}}, "review.deadline"),
        ({"review": {"remind_every": 0.5}}, "review.remind_every"),
        ({"humanInputWebhook": A}, "humanInputWebhook"),
        ({"humanInputWebhook": {}}, "humanInputWebhook.url"),
        ({"humanInputWebhook": {"url": A, "authentication": {"strategy": "x"}}}, None),
    ],
)
def test_what_cannot_be_meant_is_refused_by_its_name(fields, field):
    found = refused(**fields)
    assert found == field or (field is None and found.startswith("humanInputWebhook.authentication"))


def test_who_is_asked_gets_a_channel_of_its_own_with_its_authentication():
    bearer = {"strategy": "bearer", "token": "t"}
    found = parse(
        taskWebhookUrl=A,
        humanInputWebhookUrl=A,
        humanInputWebhook={"url": B, "authentication": bearer},
    )
    assert {link: channels for link, _, channels in found.lanes} == {
        A: Channel.TASK | Channel.HUMAN_INPUT,
        B: Channel.HUMAN_INPUT,
    }
    assert set(found.auth) == {B}
    assert found.auth[B].headers == (("authorization", "Bearer t"),)


def test_one_url_has_one_authentication():
    auth = {"strategy": "bearer", "token": "t"}
    field = refused(
        taskWebhookUrl=A,
        webhookAuthentication={"strategy": "bearer", "token": "another"},
        humanInputWebhook={"url": A, "authentication": auth},
    )
    assert field == "humanInputWebhook.authentication"
