"""When a failed delivery is tried again."""

from dataclasses import dataclass

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

# The example schedule of Standard Webhooks ("Deliverability and reliability"), its last step repeated.
STANDARD_SCHEDULE = (5 * SECOND, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR)
# About ten minutes in all, for answers that a retry seldom changes.
SHORT_SCHEDULE = (5 * SECOND, 30 * SECOND, 2 * MINUTE, 7 * MINUTE)
JITTER = 0.2


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`schedule` and `short_schedule` are waits between attempts in microseconds.

    The last step of `schedule` repeats until the event is `give_up_after` old; the short one ends
    where it ends. A wait that a receiver asks for is honoured up to `max_retry_after`.
    """

    schedule: tuple[int, ...] = STANDARD_SCHEDULE
    short_schedule: tuple[int, ...] = SHORT_SCHEDULE
    give_up_after: int = 3 * DAY
    max_retry_after: int = 1 * HOUR


def wait(schedule: tuple[int, ...], tries: int, roll: float) -> int:
    """Microseconds to wait after failure number `tries` (from 1); `roll` is uniform in [0, 1).

    The jitter is +-20 %, so that an outage does not come back as one wave.
    """
    base = schedule[min(tries, len(schedule)) - 1]
    return max(1, int(base * (1 + JITTER * (2 * roll - 1))))
