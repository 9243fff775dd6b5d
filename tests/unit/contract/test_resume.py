"""A decision taken apart, and the subscriptions that it changes."""

import json

import pytest

from crewcast.contract import resume as resumes
from crewcast.contract.problem import Problem
from crewcast.contract.resume import parse_resume
from crewcast.core.event import Channel
from crewcast.core.lane import Lane
from crewcast.core.review import Choice, How, Review, ReviewState

RUN = "01a20bb3-f86a-76d4-9da0-7cc97b4db906"
BODY = {"execution_id": RUN, "task_id": "write", "human_feedback": "fine", "is_approve": True}
REVIEW = Review(RUN, 2, "write", 3, "5f0c6d1e-0000-4000-8000-000000000000", "Writer", "text", 1)
A, B, C = (f"https://{name}.example/hook" for name in "abc")


def parse(**fields):
    return parse_resume(json.dumps({**BODY, **fields}).encode(), lambda target: None)


def seal(auth, run_id, link):
    return f"{run_id} {link} {auth.headers}".encode()


def lane(link, channels, number=1, **fields):
    return Lane(RUN, number, link, link.removesuffix("/hook"), channels, **fields)


@pytest.mark.parametrize(
    "body",
    [
        BODY,
        {"executionId": RUN, "taskId": "write", "humanFeedback": "fine", "isApprove": True},
        {"kickoff_id": RUN, "taskId": "write", "human_feedback": "fine", "isApprove": True},
    ],
)
def test_both_spellings_are_taken(body):
    found = parse_resume(json.dumps(body).encode(), lambda target: None)
    assert (found.kickoff_id, found.task_id, found.feedback, found.approve) == (RUN, "write", "fine", True)


@pytest.mark.parametrize("missing", list(BODY))
def test_every_part_of_a_decision_is_needed(missing):
    with pytest.raises(Problem) as caught:
        parse(**{missing: None})
    assert caught.value.status == 422


@pytest.mark.parametrize(
    ("task", "review", "means"),
    [
        ("write", None, True),
        (3, None, True),
        ("3", None, True),
        (REVIEW.uuid, None, True),
        ("write", 2, True),
        ("write", 1, False),
        ("read", None, False),
        (2, None, False),
    ],
)
def test_a_task_is_meant_by_its_name_its_number_or_its_uuid(task, review, means):
    assert parse(task_id=task, review=review).means(REVIEW) is means


def test_webhooks_that_are_not_named_stay_as_they_are():
    assert not parse().change.moved


def after(lanes, **fields):
    found = resumes.taken_over(lanes, parse(**fields).change, RUN, seal)
    return {one.url: (one.channels, one.auth) for one in found}


def test_a_url_takes_over_a_channel_and_the_rest_stays():
    lanes = [lane(A, Channel.TASK | Channel.STEP, auth=b"of a")]
    assert after(lanes, taskWebhookUrl=B) == {A: (Channel.STEP, b"of a"), B: (Channel.TASK, None)}


def test_null_ends_a_channel_and_a_url_that_has_none_left():
    lanes = [lane(A, Channel.TASK), lane(B, Channel.CREW, 2)]
    assert after(lanes, taskWebhookUrl=None) == {B: (Channel.CREW, None)}


def test_a_url_that_stays_keeps_its_authentication_and_a_new_one_never_gets_an_old_ones():
    lanes = [lane(A, Channel.TASK, auth=b"of a")]
    assert after(lanes, stepWebhookUrl=A, crewWebhookUrl=C) == {
        A: (Channel.TASK | Channel.STEP, b"of a"),
        C: (Channel.CREW, None),
    }
    given = after(lanes, taskWebhookUrl=A, webhookAuthentication={"strategy": "bearer", "token": "new"})
    assert given == {A: (Channel.TASK, f"{RUN} {A} (('authorization', 'Bearer new'),)".encode())}


def test_a_url_that_comes_back_keeps_its_authentication_since_more_may_wait_for_it():
    lanes = [lane(A, Channel(0), auth=b"of a", ranged=True), lane(B, Channel.TASK, 2)]
    assert after(lanes, stepWebhookUrl=A) == {A: (Channel.STEP, b"of a"), B: (Channel.TASK, None)}
    assert after(lanes, stepWebhookUrl=C) == {B: (Channel.TASK, None), C: (Channel.STEP, None)}


def test_a_url_whose_lane_was_closed_goes_on_to_have_dead_letters():
    lanes = [lane(A, Channel.TASK, closed="gone"), lane(B, Channel.STEP, 2)]
    assert after(lanes, stepWebhookUrl=C) == {A: (Channel.TASK, None), C: (Channel.STEP, None)}


def test_lanes_that_send_what_there_was_are_no_subscriptions():
    lanes = [
        lane(A, Channel.TASK),
        lane(B, Channel.TASK, 2, replay_of=1),
        lane(C, Channel.TASK, 3, split_of=1),
    ]
    assert set(after(lanes, crewWebhookUrl=None)) == {A}


def test_what_was_decided_is_named_when_another_decision_comes():
    decided = Review(
        *(
            getattr(REVIEW, name)
            for name in ("run_id", "number", "task_id", "index", "uuid", "agent", "output")
        ),
        1,
        state=ReviewState.DECIDED,
        decision=Choice.REJECT,
        decided_at=2,
        decided_by="Ada",
        decided_how=How.LINK,
    )
    problem = resumes.not_pending(decided)
    assert problem.status == 400
    assert "task write was already rejected by Ada" in problem.body["message"]
    assert problem.body["details"]["decision"] == "reject"
    assert resumes.not_pending(None).body["message"] == "Execution is not in pending human input state"
