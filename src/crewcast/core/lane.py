"""A lane: the ordered delivery of one run's events to one distinct URL, and its one rule, `settle`."""

from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from crewcast.core.backoff import RetryPolicy, wait
from crewcast.core.event import Channel, Event
from crewcast.core.outcome import Outcome


class Lane(Struct, frozen=True, gc=False):
    """`number` counts the lanes of a run from 1. `cursor` is the run's seq that was settled last,
    `tail` the last one in the log that belongs here: there is work while `cursor < tail`.

    `settled` counts the events settled so far, so the head's `crewcast-lane-seq` is `settled + 1`.
    `tries` counts the attempts made for the head. `closed` is why the lane takes nothing more.
    """

    run_id: str
    number: int
    url: str
    origin: str
    channels: Channel
    cursor: int = 0
    tail: int = 0
    settled: int = 0
    tries: int = 0
    due_at: int | None = None
    closed: str | None = None
    lease_token: str | None = None
    lease_until: int | None = None

    @property
    def head_lane_seq(self) -> int:
        return self.settled + 1


class Verdict(StrEnum):
    ACCEPTED = "accepted"
    RETRY = "retry"
    GAVE_UP = "gave_up"  # this event is a dead letter, the lane goes on
    CLOSED = "closed"  # this event and the rest of the lane are dead letters


class Attempt(Struct, frozen=True, gc=False):
    """One POST and its outcome. `number` counts the attempts for this event from 1."""

    run_id: str
    lane: int
    seq: int
    number: int
    at: int
    outcome: Outcome
    verdict: Verdict


def settle(
    lane: Lane, head: Event, outcome: Outcome, policy: RetryPolicy, now: int, roll: float
) -> tuple[Lane, Verdict]:
    """The lane after an attempt for its head, and what was decided for that event.

    2xx moves the cursor. 410 closes the lane. Everything else, 3xx included, waits and is tried
    again, until the schedule of its kind ends; then the event is a dead letter and the lane goes
    on. No event is given up before an attempt of its own.
    """
    past = replace(lane, cursor=head.seq, settled=lane.settled + 1, tries=0, due_at=now)
    if outcome.accepted:
        return past, Verdict.ACCEPTED
    if outcome.gone:
        return replace(past, closed="gone", due_at=None), Verdict.CLOSED
    tries = lane.tries + 1
    if outcome.refused_for_good:
        spent, schedule = tries > len(policy.short_schedule), policy.short_schedule
    else:
        spent, schedule = now - head.at >= policy.give_up_after, policy.schedule
    if spent:
        return past, Verdict.GAVE_UP
    pause = wait(schedule, tries, roll)
    if outcome.retry_after is not None:
        pause = max(pause, min(outcome.retry_after, policy.max_retry_after))
    return replace(lane, tries=tries, due_at=now + pause), Verdict.RETRY
