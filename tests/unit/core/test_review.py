"""What is asked, decided, reminded of and let lapse."""

import pytest
from msgspec.structs import replace

from crewcast.core import review as reviews
from crewcast.core.review import Choice, Decision, Default, Due, How, Review, ReviewState

NOW = 1_750_000_000_000_000
HOUR = 3_600_000_000
APPROVE = Decision(True, "", "kim", How.API)
REJECT = Decision(False, "Shorter, please.", "kim", How.LINK)


def asked(**fields) -> Review:
    plain = Review("0197-run", 1, "task-1", 2, "uuid-1", "Writer", "A draft.", NOW)
    return reviews.ask(replace(plain, **fields))


def test_a_decision_is_noted_with_who_what_when_and_how():
    review = reviews.decide(asked(remind_every=HOUR), REJECT, NOW + 5)
    assert review == replace(
        asked(),
        remind_every=HOUR,
        state="decided",
        decision="reject",
        feedback="Shorter, please.",
        decided_at=NOW + 5,
        decided_by="kim",
        decided_how="link",
    )
    assert review.due_at is None
    assert reviews.decide(asked(), APPROVE, NOW).decision is Choice.APPROVE


@pytest.mark.parametrize("first", [APPROVE, REJECT])
def test_nothing_is_decided_twice(first):
    review = reviews.decide(asked(), first, NOW)
    for second in (APPROVE, REJECT):
        with pytest.raises(ValueError, match="review 1 is decided"):
            reviews.decide(review, second, NOW)
    with pytest.raises(ValueError, match="review 1 is decided"):
        reviews.void(review, NOW, "kim")
    with pytest.raises(ValueError, match="review 1 is decided"):
        reviews.remind(review, NOW)


def test_the_same_decision_is_known_whoever_repeats_it():
    review = reviews.decide(asked(), REJECT, NOW)
    assert reviews.same(review, REJECT)
    assert reviews.same(review, replace(REJECT, by="lee", how=How.CLI))
    assert not reviews.same(review, replace(REJECT, approve=True))
    assert not reviews.same(review, replace(REJECT, feedback="Longer, please."))
    assert not reviews.same(review, replace(REJECT, pass_feedback=False))
    assert not reviews.same(asked(), replace(APPROVE, feedback=""))
    assert not reviews.same(reviews.void(asked(), NOW, "kim"), APPROVE)


@pytest.mark.parametrize(
    ("default", "choice"), [(Default.APPROVE, Choice.APPROVE), (Default.REJECT, Choice.REJECT)]
)
def test_the_default_decides_at_the_deadline(default, choice):
    review = reviews.expire(asked(expires_at=NOW + HOUR, default=default), NOW + HOUR)
    assert (review.state, review.decision, review.feedback) == (ReviewState.DECIDED, choice, "")
    assert (review.decided_by, review.decided_how, review.decided_at) == (
        "deadline",
        How.DEADLINE,
        NOW + HOUR,
    )


@pytest.mark.parametrize("default", [None, Default.FAIL])
def test_without_a_default_the_deadline_decides_nothing(default):
    review = asked(expires_at=NOW + HOUR, default=default)
    assert reviews.by_default(review) is None
    review = reviews.expire(review, NOW + HOUR)
    assert (review.state, review.decision, review.decided_how) == (ReviewState.VOID, None, How.DEADLINE)


def test_what_is_due_is_the_deadline_before_a_reminder():
    review = asked(expires_at=NOW + 3 * HOUR, remind_every=2 * HOUR)
    assert review.due_at == NOW + 2 * HOUR
    assert reviews.due(review, NOW + 2 * HOUR - 1) is None
    assert reviews.due(review, NOW + 2 * HOUR) is Due.REMINDER
    assert reviews.due(review, NOW + 3 * HOUR) is Due.DEADLINE
    assert reviews.due(reviews.decide(review, APPROVE, NOW), NOW + 9 * HOUR) is None
    assert asked().due_at is None
    assert reviews.due(asked(), NOW + 10**15) is None


def test_reminders_come_evenly_until_the_deadline():
    review = asked(expires_at=NOW + 3 * HOUR, remind_every=HOUR)
    review = reviews.remind(review, NOW + HOUR + 5)
    assert (review.remind_at, review.reminders) == (NOW + 2 * HOUR, 1)
    review = reviews.remind(review, NOW + 2 * HOUR)
    assert (review.remind_at, review.reminders, review.due_at) == (None, 2, NOW + 3 * HOUR)
    assert asked(expires_at=NOW + HOUR, remind_every=HOUR).remind_at is None


def test_missed_reminders_are_not_made_up_for():
    review = reviews.remind(asked(remind_every=HOUR), NOW + 10 * HOUR + 1)
    assert (review.remind_at, review.reminders) == (NOW + 11 * HOUR, 1)


def test_a_question_needs_time_for_its_answer():
    with pytest.raises(ValueError, match="cannot expire before"):
        asked(expires_at=NOW)
    with pytest.raises(ValueError, match="need time between"):
        asked(remind_every=0)
