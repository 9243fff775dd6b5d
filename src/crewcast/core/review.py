"""A review: a run waits for a person to approve or reject what a task made. The rules are pure; `now` is given."""

from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

DEADLINE = "deadline"


class ReviewState(StrEnum):
    PENDING = "pending"
    DECIDED = "decided"
    VOID = "void"  # the run ended first, or the deadline came without a default


class Choice(StrEnum):
    APPROVE = "approve"
    REJECT = "reject"


class Default(StrEnum):
    """What comes of a review that nobody has decided at its deadline."""

    APPROVE = "approve"
    REJECT = "reject"
    FAIL = "fail"


class How(StrEnum):
    API = "api"
    CLI = "cli"
    LINK = "link"
    DEADLINE = "deadline"


class Due(StrEnum):
    DEADLINE = "deadline"
    REMINDER = "reminder"


class Review(Struct, frozen=True, gc=False):
    """One question to a person. `number` counts the reviews of a run from 1; `index` is the task's place, from 1.

    `output` is what is to be judged. `default` is what comes at `expires_at`; None is as `fail`. The next reminder
    is due at `remind_at`; `reminders` were given. `decided_at`, `decided_by` (in words) and `decided_how` tell of
    the decision; of a void review, of what made it void.
    """

    run_id: str
    number: int
    task_id: str
    index: int
    uuid: str
    agent: str
    output: str
    asked_at: int
    expires_at: int | None = None
    default: Default | None = None
    remind_every: int | None = None
    remind_at: int | None = None
    reminders: int = 0
    state: ReviewState = ReviewState.PENDING
    decision: Choice | None = None
    feedback: str = ""
    pass_feedback: bool = True
    decided_at: int | None = None
    decided_by: str | None = None
    decided_how: How | None = None

    @property
    def due_at(self) -> int | None:
        """When something is to be done about it, unless a person decides before."""
        if self.state is not ReviewState.PENDING:
            return None
        return min((at for at in (self.expires_at, self.remind_at) if at is not None), default=None)


class Decision(Struct, frozen=True, gc=False):
    """What was decided, by whom (in words) and how. Later tasks see `feedback` if `pass_feedback`."""

    approve: bool
    feedback: str
    by: str
    how: How
    pass_feedback: bool = True

    @property
    def verdict(self) -> Choice:
        return Choice.APPROVE if self.approve else Choice.REJECT


def ask(review: Review) -> Review:
    """A new review with its first reminder; none is due at the deadline or later.

    Raises ValueError for a deadline or a reminder that is not later than the question.
    """
    if review.expires_at is not None and review.expires_at <= review.asked_at:
        raise ValueError(f"run {review.run_id}: a review cannot expire before it is asked for")
    if review.remind_every is None:
        return replace(review, remind_at=None)
    if review.remind_every <= 0:
        raise ValueError(f"run {review.run_id}: reminders need time between them")
    return replace(review, remind_at=_next_reminder(review, review.asked_at))


def decide(review: Review, decision: Decision, now: int) -> Review:
    """The review as it was decided. Raises ValueError for one that is not pending: ask `same` first."""
    _must_be_pending(review)
    return replace(
        review,
        state=ReviewState.DECIDED,
        decision=decision.verdict,
        feedback=decision.feedback,
        pass_feedback=decision.pass_feedback,
        remind_at=None,
        decided_at=now,
        decided_by=decision.by,
        decided_how=decision.how,
    )


def same(review: Review, decision: Decision) -> bool:
    """Whether the review was decided just so, by whomever: the repetition of a request changes nothing."""
    return (review.decision, review.feedback, review.pass_feedback) == (
        decision.verdict,
        decision.feedback,
        decision.pass_feedback,
    )


def by_default(review: Review) -> Decision | None:
    """What is decided at the deadline; None if the run fails then."""
    if review.default is None or review.default is Default.FAIL:
        return None
    return Decision(review.default is Default.APPROVE, "", DEADLINE, How.DEADLINE)


def expire(review: Review, now: int) -> Review:
    """The review at its deadline: decided by its default, or void, and then its run fails."""
    decision = by_default(review)
    if decision is not None:
        return decide(review, decision, now)
    return void(review, now, DEADLINE, How.DEADLINE)


def void(review: Review, now: int, by: str | None, how: How | None = None) -> Review:
    """The review of a run that ended first. Raises ValueError for one that is not pending."""
    _must_be_pending(review)
    return replace(
        review,
        state=ReviewState.VOID,
        remind_at=None,
        decided_at=now,
        decided_by=by,
        decided_how=how,
    )


def due(review: Review, now: int) -> Due | None:
    """What is to be done about a pending review by now. The deadline goes before a reminder."""
    if review.state is not ReviewState.PENDING:
        return None
    if review.expires_at is not None and review.expires_at <= now:
        return Due.DEADLINE
    if review.remind_at is not None and review.remind_at <= now:
        return Due.REMINDER
    return None


def remind(review: Review, now: int) -> Review:
    """The review after a reminder. Those that were missed are not made up for: the next one is later than `now`."""
    _must_be_pending(review)
    return replace(review, reminders=review.reminders + 1, remind_at=_next_reminder(review, now))


def _next_reminder(review: Review, now: int) -> int | None:
    if review.remind_every is None:
        return None
    passed = (now - review.asked_at) // review.remind_every
    at = review.asked_at + (passed + 1) * review.remind_every
    return None if review.expires_at is not None and at >= review.expires_at else at


def _must_be_pending(review: Review) -> None:
    if review.state is not ReviewState.PENDING:
        raise ValueError(f"run {review.run_id}: review {review.number} is {review.state}")
