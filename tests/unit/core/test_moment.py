"""Moments in RFC 3339."""

import pytest

from crewcast.core import moment

SECOND = 1_000_000


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t00:00:01z", SECOND),
        ("1970-01-01T00:00:00.5Z", SECOND // 2),
        ("1970-01-01T00:00:00.000001Z", 1),
        ("1970-01-01T00:00:00.0000019999Z", 1),
        ("1970-01-01T02:00:00+02:00", 0),
        ("1969-12-31T23:00:00-01:00", 0),
        ("1969-12-31T23:59:59Z", -SECOND),
        ("2001-09-09T01:46:40Z", 1_000_000_000 * SECOND),
        ("0001-01-01T00:00:00+14:00", -(62_135_596_800 + 14 * 3600) * SECOND),
    ],
)
def test_a_moment_is_microseconds_since_1970(text, at):
    assert moment.parse(text) == at


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-01-31",
        "2026-01-31T12:00:00",  # of which zone?
        "2026-01-31 12:00:00Z",
        "2026-01-31T12:00Z",
        "2026-02-30T12:00:00Z",
        "2026-01-31T25:00:00Z",
        "2026-01-31T12:00:00+25:00",
        "2026-01-31T12:00:00.Z",
        "0000-01-01T00:00:00Z",
        "٢٠٢٦-01-31T12:00:00Z",
        "2026-01-31T12:00:00Z\n",
    ],
)
def test_what_is_no_moment_is_told_how_one_is_written(text):
    with pytest.raises(ValueError, match="2026-01-31T12:00:00Z"):
        moment.parse(text)


@pytest.mark.parametrize("at", [0, 1, -1, 1_790_000_000_123_456])
def test_what_is_shown_can_be_read(at):
    assert moment.parse(moment.show(at)) == at
