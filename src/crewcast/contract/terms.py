"""The terms of a run: what it may use, and how long it waits for a person. Given at kickoff, kept with the run."""

from typing import Any

import msgspec

from crewcast.contract.problem import invalid
from crewcast.contract.webhooks import JSON
from crewcast.core import duration
from crewcast.core.backoff import DAY, SECOND
from crewcast.core.review import Default

MOST = 1 << 53  # what every JSON reader takes as a whole number
LEAST = 0.001  # seconds
LONGEST = 366 * DAY


class Limits(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a run may use in all, over every process and pause: `seconds` of work, and counts. None: no limit."""

    tokens: int | None = None
    llm_calls: int | None = None
    tool_calls: int | None = None
    seconds: float | None = None

    @property
    def counted(self) -> JSON | None:
        """Those that the crew's own process counts."""
        named = {"tokens": self.tokens, "llm_calls": self.llm_calls, "tool_calls": self.tool_calls}
        found = {name: limit for name, limit in named.items() if limit is not None}
        return found or None


class ReviewTerms(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a run waits for a person: microseconds until `default` is decided (None: for ever), and between reminders.

    `pass_feedback`: whether later tasks see what the person said with an approval.
    """

    timeout: int | None = None
    default: Default = Default.FAIL
    remind_every: int | None = None
    pass_feedback: bool = True


class Terms(msgspec.Struct, frozen=True, omit_defaults=True):
    """What `Run.options` keeps. The last two are fields of AMP that are kept and not served yet."""

    limits: Limits = Limits()
    review: ReviewTerms | None = None  # None: as the server is set
    rerun_of: str | None = None  # the run whose finished tasks this one took over
    webhooks: Any = None
    restoreFromStateId: Any = None  # noqa: N815 - AMP's name


def of_run(options: bytes | None) -> Terms:
    return Terms() if options is None else msgspec.json.decode(options, type=Terms)


def parse_limits(value: Any) -> Limits:
    """Raises Problem 422."""
    if value is None:
        return Limits()
    _object("limits", value, ("tokens", "llm_calls", "tool_calls", "seconds"))
    counts = {
        name: _count(f"limits.{name}", value.get(name)) for name in ("tokens", "llm_calls", "tool_calls")
    }
    return Limits(**counts, seconds=parse_seconds("limits.seconds", value.get("seconds")))


def parse_review(value: Any) -> ReviewTerms | None:
    """Raises Problem 422."""
    if value is None:
        return None
    _object("review", value, ("timeout", "default", "remind_every", "pass_feedback"))
    default, passed = value.get("default"), value.get("pass_feedback")
    if default is not None and default not in tuple(Default):
        raise invalid("review.default", f"must be one of {', '.join(Default)}")
    if passed is not None and not isinstance(passed, bool):
        raise invalid("review.pass_feedback", "must be true or false")
    if default is not None and value.get("timeout") is None:
        raise invalid("review.default", "is decided after review.timeout, which is not given")
    remind_every = _duration("review.remind_every", value.get("remind_every"))
    if remind_every is not None and remind_every < SECOND:
        raise invalid("review.remind_every", "must be at least a second")
    return ReviewTerms(
        timeout=_duration("review.timeout", value.get("timeout")),
        default=Default(default or Default.FAIL),
        remind_every=remind_every,
        pass_feedback=True if passed is None else passed,
    )


def parse_seconds(name: str, value: Any) -> float | None:
    """A millisecond to a year. Raises Problem 422."""
    if value is None:
        return None
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not LEAST <= value <= LONGEST / SECOND
    ):
        raise invalid(name, f"must be a number of seconds, from {LEAST} to a year")
    return float(value)


def parse_whole(name: str, value: Any, low: int, high: int) -> int | None:
    """Raises Problem 422."""
    if value is None:
        return None
    # In JSON 2.0 is a whole number too.
    whole = isinstance(value, int | float) and not isinstance(value, bool) and value % 1 == 0
    if not whole or not low <= value <= high:
        raise invalid(name, f"must be a whole number from {low} to {high}")
    return int(value)


def _count(name: str, value: Any) -> int | None:
    return parse_whole(name, value, 1, MOST)


def _duration(name: str, value: Any) -> int | None:
    """Microseconds of a number of seconds, or of a text such as `24h`."""
    if not isinstance(value, str):
        seconds = parse_seconds(name, value)
        return None if seconds is None else int(seconds * SECOND)
    try:
        found = duration.parse(value)
    except ValueError as e:
        raise invalid(name, str(e)) from e
    if not 0 < found <= LONGEST:
        raise invalid(name, "must be more than 0 and at most a year")
    return found


def _object(name: str, value: Any, fields: tuple[str, ...]) -> None:
    if not isinstance(value, dict):
        raise invalid(name, f"must be an object with some of {', '.join(fields)}")
    if unknown := sorted(set(value) - set(fields)):
        raise invalid(f"{name}.{unknown[0][:64]}", f"is not known; there are {', '.join(fields)}")
