"""Durations as people write them."""

import re

from crewcast.core.backoff import DAY, HOUR, MINUTE, SECOND

_UNITS = {"": SECOND, "s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY}
_WRITTEN = re.compile(r"([0-9]{1,9})([smhd]?)")


def parse(text: str) -> int:
    """Microseconds of `90`, `90s`, `15m`, `24h` or `7d`.

    Raises ValueError with a sentence that says how one is written.
    """
    found = _WRITTEN.fullmatch(text.strip())
    if found is None:
        raise ValueError("must be a duration such as 24h: a whole number, then s, m, h or d")
    return int(found[1]) * _UNITS[found[2]]


def show(duration: int) -> str:
    """The shortest way to write a whole number of seconds."""
    for unit in "dhm":
        if duration % _UNITS[unit] == 0 and duration:
            return f"{duration // _UNITS[unit]}{unit}"
    return f"{duration // SECOND}s"
