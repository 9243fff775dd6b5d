"""A person's decision as `POST /resume` takes it, and what is answered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from crewcast.contract.kickoff import HUMAN_INPUT, URL_FIELDS, Seal, Subscribers, UrlCheck, parse_subscribers
from crewcast.contract.problem import Problem, invalid, json_object
from crewcast.contract.terms import parse_whole
from crewcast.contract.webhooks import JSON
from crewcast.core.event import Channel
from crewcast.core.lane import Lane
from crewcast.core.review import Choice, Review

NOT_PENDING = "Execution is not in pending human input state"


@dataclass(frozen=True, slots=True)
class Change:
    """What a request says of a run's webhooks: `given` are the URLs that take over, `ended` the channels that go
    nowhere any more. What is in neither stays as it is.
    """

    given: Subscribers
    ended: Channel

    @property
    def moved(self) -> Channel:
        moved = self.ended
        for _, _, channels in self.given.lanes:
            moved |= channels
        return moved


@dataclass(frozen=True, slots=True)
class Resume:
    """A person's decision about the task at which a run waits, and where its events go from then on.

    `task_id` is the task's name, its number from 1, or its UUID. `review`: the number of the review that is meant,
    where the newest is not.
    """

    kickoff_id: str
    task_id: str
    feedback: str
    approve: bool
    review: int | None
    change: Change
    warnings: list[str]

    def means(self, review: Review) -> bool:
        if self.review is not None and self.review != review.number:
            return False
        return self.task_id in (review.task_id, str(review.index), review.uuid)


def parse_resume(body: bytes, check_url: UrlCheck) -> Resume:
    """The decision in a request body, in snake or camel case, as AMP's documents and its server have it.

    Raises Problem: 400 for what is not a JSON object, 422 for everything inside it.
    """
    request = json_object(body)
    kickoff_id = _field(request, ("execution_id", "executionId", "kickoff_id", "kickoffId"), str, "a text")
    task_id = _field(request, ("task_id", "taskId"), (str, int), "a text")
    feedback = _field(request, ("human_feedback", "humanFeedback"), str, "a text")
    approve = _field(request, ("is_approve", "isApprove"), bool, "true or false")
    warnings: list[str] = []
    change = parse_change(request, check_url, warnings)
    review = parse_whole("review", request.get("review"), 1, 1 << 31)
    return Resume(kickoff_id, str(task_id), feedback, approve, review, change, warnings)


def parse_change(request: JSON, check_url: UrlCheck, warnings: list[str]) -> Change:
    """Raises Problem 422."""
    given = parse_subscribers(request, check_url, warnings)
    named = [channel for name, channel in URL_FIELDS.items() if name in request]
    named += [Channel.HUMAN_INPUT] if HUMAN_INPUT in request else []
    ended = Channel(0)
    for channel in named:
        ended |= channel
    for _, _, channels in given.lanes:
        ended &= ~channels
    return Change(given, ended)


def taken_over(lanes: Sequence[Lane], change: Change, run_id: str, seal: Seal) -> list[Lane]:
    """The subscriptions of a run with these lanes, as they are after a change.

    A URL that stays, or comes back, keeps its authentication, unless another is given for it; a new one never gets
    an old one's. One whose lane was closed stays too: what it is not sent is a dead letter.
    """
    before = [lane for lane in lanes if not lane.fixed]
    after = {lane.url: replace(lane, channels=lane.channels & ~change.moved) for lane in before}
    ordered = all(lane.ordered for lane in before)
    for link, target, channels in change.given.lanes:
        old = after.get(link) or Lane(run_id, 0, link, target.origin, Channel(0), ordered=ordered)
        auth = change.given.auth.get(link)
        sealed = old.auth if auth is None else seal(auth, run_id, link)
        after[link] = replace(old, channels=old.channels | channels, auth=sealed)
    return [lane for lane in after.values() if lane.channels]


def answer(review: Review, kickoff_id: str, warnings: Sequence[str] = ()) -> JSON:
    """What a decision is answered with, the first time and again."""
    approved = review.decision is Choice.APPROVE
    body: JSON = {
        "status": "resumed" if approved else "retrying",
        "message": (
            f"Task {review.task_id} was approved; the run goes on"
            if approved
            else f"Task {review.task_id} was rejected; it is done again with the feedback"
        ),
        "kickoff_id": kickoff_id,
        "execution_id": kickoff_id,
        "review": review.number,
    }
    if warnings:
        body["warnings"] = list(warnings)
    return body


def not_pending(review: Review | None, why: str = "") -> Problem:
    """400, naming what was decided if something was."""
    details: Mapping[str, Any] = {}
    said = f"{NOT_PENDING}{why}"
    if review is not None and review.decision is not None:
        word = "approved" if review.decision is Choice.APPROVE else "rejected"
        said = f"{NOT_PENDING}: task {review.task_id} was already {word}" + (
            f" by {review.decided_by}" if review.decided_by else ""
        )
        details = {
            "task_id": review.task_id,
            "review": review.number,
            "decision": review.decision,
            "decided_by": review.decided_by,
            "decided_how": review.decided_how,
        }
    return Problem(400, "Bad Request", said, dict(details))


def _field(request: JSON, names: Sequence[str], kind: type | tuple[type, ...], what: str) -> Any:
    for name in names:
        value = request.get(name)
        if value is not None:
            # In Python a truth is a number too.
            if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
                raise invalid(name, f"must be {what}")
            return value
    raise invalid(names[0], "is required")
