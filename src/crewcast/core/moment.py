"""Moments as people and programs write them."""

import contextlib
import re
from datetime import UTC, datetime, timedelta

_WRITTEN = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}:[0-9]{2}:[0-9]{2})(\.[0-9]{1,6})?[0-9]*(?:([Zz])|([+-][0-9]{2}:[0-9]{2}))"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse(text: str) -> int:
    """Microseconds since 1970 of an RFC 3339 `date-time`, such as `2026-01-31T12:00:00Z`.

    Raises ValueError with a sentence that says how one is written.
    """
    found = _WRITTEN.fullmatch(text)
    moment = None
    if found is not None:
        day, time, fraction, _, offset = found.groups()
        written = f"{day}T{time}{(fraction or '.').ljust(7, '0')}{offset or '+00:00'}"
        with contextlib.suppress(ValueError):
            moment = datetime.fromisoformat(written)
    if moment is None:
        raise ValueError("must be a moment with its zone, such as 2026-01-31T12:00:00Z")
    return (moment - _EPOCH) // timedelta(microseconds=1)


def show(at: int) -> str:
    """As `parse` reads it, to the microsecond."""
    moment = _EPOCH + timedelta(microseconds=at)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
