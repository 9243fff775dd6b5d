"""Durations as people write them."""

import pytest

from crewcast.core import duration

SECOND = 1_000_000


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("90", 90), ("90s", 90), (" 15m ", 900), ("24h", 86_400), ("7d", 604_800)],
)
def test_what_is_understood(text, seconds):
    assert duration.parse(text) == seconds * SECOND


@pytest.mark.parametrize("text", ["", "h", "-1h", "1.5h", "1 h", "1w", "1h30m", "٣h", "1e3", "9999999999"])
def test_what_is_not(text):
    with pytest.raises(ValueError, match="such as 24h"):
        duration.parse(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (90, "90s"), (900, "15m"), (5400, "90m"), (86_400, "1d")]
)
def test_how_one_is_shown(seconds, text):
    assert duration.show(seconds * SECOND) == text
    assert duration.parse(text) == seconds * SECOND
