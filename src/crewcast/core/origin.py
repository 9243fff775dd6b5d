"""The health of an origin: its breaker, its pause, and its rate. Pure; the dispatcher holds the values."""

from dataclasses import dataclass
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from crewcast.core.backoff import MINUTE, SECOND, wait
from crewcast.core.outcome import Outcome

LaneKey = tuple[str, int]  # the run's id and the lane's number


class Breaker(StrEnum):
    CLOSED = "closed"  # as usual
    OPEN = "open"  # nothing is sent until `retry_at`
    HALF_OPEN = "half_open"  # one request is on its way; its outcome decides


@dataclass(frozen=True, slots=True)
class HealthPolicy:
    """Waits are in microseconds.

    The breaker opens after `failures` in a row, for `open_for`, doubling each time that the probe fails up
    to `open_at_most`. A probe that is not heard of for `probe_patience` is followed by another: it is
    longer than any request. Two lanes that are throttled within `throttle_window` pause the origin for
    what it asked for, or `pause` if it did not say, but `pause_at_most` at a time.
    """

    failures: int = 10
    open_for: int = 30 * SECOND
    open_at_most: int = 10 * MINUTE
    probe_patience: int = 60 * SECOND
    throttle_window: int = 10 * SECOND
    pause: int = 5 * SECOND
    pause_at_most: int = 60 * SECOND


class Health(Struct, frozen=True, gc=False):
    """`failures` counts those in a row, `openings` how often the breaker opened in a row.

    `retry_at` is when an open breaker lets a probe through, or a half-open one another, should the first
    not be heard of. `paused_until` holds whatever the breaker says. `reason` is the kind of the outcome
    that opened or paused it. The last three fields are the dispatcher's own and not stored: whose probe is
    on its way, and which lane was throttled last, and when.
    """

    origin: str
    state: Breaker = Breaker.CLOSED
    failures: int = 0
    openings: int = 0
    opened_at: int | None = None
    retry_at: int | None = None
    paused_until: int | None = None
    reason: str | None = None
    probe: LaneKey | None = None
    throttled_lane: LaneKey | None = None
    throttled_at: int = 0

    @property
    def well(self) -> bool:
        """There is nothing to remember or to show."""
        return self.state is Breaker.CLOSED and self.paused_until is None


def held_until(health: Health, now: int) -> int | None:
    """Until when nothing may be sent to the origin; None if something may be now.

    A look ahead, for claims; whoever is about to send asks `may_send`.
    """
    until = health.paused_until or 0
    if health.state is not Breaker.CLOSED:
        until = max(until, health.retry_at or 0)
    return until if until > now else None


def may_send(health: Health, lane: LaneKey, now: int, policy: HealthPolicy) -> tuple[Health, int | None]:
    """None if the lane may send now, else when to ask again.

    Of all who ask an open breaker after its time, the first may: its request is the probe, and the others
    wait for its outcome. What it found out is told to `observe`; a probe that is never heard of again is
    followed by another.
    """
    until = held_until(health, now)
    if until is not None:
        return health, until
    if health.state is Breaker.CLOSED:
        return health, None
    return replace(health, state=Breaker.HALF_OPEN, probe=lane, retry_at=now + policy.probe_patience), None


def observe(
    health: Health, outcome: Outcome, lane: LaneKey, now: int, roll: float, policy: HealthPolicy
) -> Health:
    """The health after an outcome of one of the origin's lanes; the same object if nothing changed.

    Any whole answer below 500 shows that the origin works and closes the breaker. While it is not closed,
    only the probe's failure counts: what else fails was on its way before.
    """
    if outcome.ours:
        return health
    if health.paused_until is not None and health.paused_until <= now:
        health = replace(health, paused_until=None, reason=health.reason if health.retry_at else None)
    if outcome.throttled:
        health = _throttled(health, outcome, lane, now, policy)
    if not outcome.broken:
        return _works(health)
    if health.state is Breaker.CLOSED:
        failures = health.failures + 1
        if failures < policy.failures:
            return replace(health, failures=failures)
        return _opened(replace(health, failures=failures), outcome, now, roll, policy)
    if health.state is Breaker.HALF_OPEN and lane == health.probe:
        return _opened(replace(health, failures=health.failures + 1), outcome, now, roll, policy)
    return health


def _works(health: Health) -> Health:
    if health.state is Breaker.CLOSED and not health.failures:
        return health
    reason = health.reason if health.paused_until is not None else None
    return replace(
        health,
        state=Breaker.CLOSED,
        failures=0,
        openings=0,
        opened_at=None,
        retry_at=None,
        reason=reason,
        probe=None,
    )


def _opened(health: Health, outcome: Outcome, now: int, roll: float, policy: HealthPolicy) -> Health:
    openings = health.openings + 1
    doubled = min(policy.open_for << min(openings - 1, 32), policy.open_at_most)
    return replace(
        health,
        state=Breaker.OPEN,
        openings=openings,
        opened_at=now if health.opened_at is None else health.opened_at,
        retry_at=now + wait((doubled,), 1, roll),
        reason=outcome.kind,
        probe=None,
    )


def _throttled(health: Health, outcome: Outcome, lane: LaneKey, now: int, policy: HealthPolicy) -> Health:
    """One lane alone waits by its own retry; the second one shows that it is about the origin."""
    several = (
        health.throttled_lane is not None
        and health.throttled_lane != lane
        and now - health.throttled_at <= policy.throttle_window
    )
    health = replace(health, throttled_lane=lane, throttled_at=now)
    if not several:
        return health
    asked = policy.pause if outcome.retry_after is None else outcome.retry_after
    until = now + min(asked, policy.pause_at_most)
    if until <= max(health.paused_until or 0, now):
        return health
    return replace(health, paused_until=until, reason=outcome.kind)


class Rate(Struct, frozen=True, gc=False):
    """A token bucket as one number (GCRA): `every` microseconds a token, at most `burst` at once.

    `full_at` is when the bucket will be full again; each token taken moves it `every` later.
    """

    every: int
    burst: int
    full_at: int = 0

    @classmethod
    def per_second(cls, events: float, burst: int = 1) -> "Rate":
        if events <= 0 or burst < 1:
            raise ValueError(f"a rate of {events} a second with bursts of {burst} lets nothing through")
        return cls(every=max(1, -int(-SECOND // events)), burst=burst)


def take(rate: Rate, now: int) -> tuple[Rate, int]:
    """Takes a token; the moment from which it may be used, which may be now.

    Tokens are reserved in the order asked for: who has to wait need not ask again.
    """
    full_at = max(rate.full_at, now) + rate.every
    return replace(rate, full_at=full_at), max(now, full_at - rate.every * rate.burst)
