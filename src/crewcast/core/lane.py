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

    `settled` counts the events settled so far and `total` those that belong here so far, so
    `total - settled` wait. `tries` counts the attempts made for the head, `refusals` those of them that
    were answered with a refusal for good. `closed` is why the lane takes nothing more.

    A lane with `replay_of` sends events of that lane again: all of those it had when it was asked for, or
    one, or with `dead_only` those that were dead letters there and delivered by no replay, all of these or
    what was given up since a moment. `asked_at` is when it was asked for; the age of what it sends counts
    from then. A lane with `split_of` has one event, which failed in a lane that is not `ordered` and left
    it, so that nothing waits for it.

    `channels` are what the lane hears from now on: none if its subscription has ended. With `ranged` that was
    otherwise before, and only the store knows which events belong here.

    `auth` is the sealed authentication for this URL: never shown, never logged.
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
    replay_of: int | None = None
    dead_only: bool = False
    ordered: bool = True
    auth: bytes | None = None
    refusals: int = 0
    split_of: int | None = None
    total: int = 0
    asked_at: int | None = None
    ranged: bool = False

    @property
    def head_lane_seq(self) -> int:
        """The head's number in the lane; of a `dead_only` lane only `Store.lane_events` knows it."""
        return self.settled + 1

    @property
    def fixed(self) -> bool:
        """What the lane sends was decided when it was made: an append does not move its tail."""
        return self.replay_of is not None or self.split_of is not None


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
    on. Each schedule counts its own failures: a refusal after an outage begins the short one. No event is
    given up before an attempt of its own.
    """
    past = replace(lane, cursor=head.seq, settled=lane.settled + 1, tries=0, refusals=0, due_at=now)
    if outcome.accepted:
        return past, Verdict.ACCEPTED
    if outcome.gone:
        return replace(past, closed="gone", due_at=None), Verdict.CLOSED
    tries, refusals = lane.tries + 1, lane.refusals
    if outcome.refused_for_good:
        refusals += 1
        count, schedule = refusals, policy.short_schedule
        spent = count > len(schedule)
    else:
        count, schedule = tries - refusals, policy.schedule
        spent = now - max(head.at, lane.asked_at or 0) >= policy.give_up_after
    if spent:
        return past, Verdict.GAVE_UP
    pause = wait(schedule, count, roll)
    if outcome.retry_after is not None:
        pause = max(pause, min(outcome.retry_after, policy.max_retry_after))
    return replace(lane, tries=tries, refusals=refusals, due_at=now + pause), Verdict.RETRY


def split(lane: Lane, head: Event, retried: Lane) -> tuple[Lane, Lane]:
    """For a lane that is not ordered, whose `head` is to be tried again as `settle` said in `retried`:

    the lane as it goes on behind the event, and the lane of its own that the event leaves on. The store
    numbers that one (`Settlement.split`).
    """
    rest = replace(lane, cursor=head.seq, settled=lane.settled + 1, tries=0, refusals=0)
    apart = replace(
        retried,
        number=0,
        cursor=head.seq - 1,
        tail=head.seq,
        settled=lane.settled,
        total=lane.settled + 1,
        lease_token=None,
        lease_until=None,
        ordered=True,
        split_of=lane.number,
    )
    return rest, apart
