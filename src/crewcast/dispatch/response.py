"""What a subscriber's answer says, read with suspicion. Pure."""

import re
from datetime import UTC
from email.utils import parsedate_to_datetime

from crewcast.core.backoff import SECOND

EXCERPT = 512  # characters of a response body that are kept
EXCERPT_BYTES = 4 * EXCERPT

_RETRY_AFTER = re.compile(rb"\r\nretry-after:[ \t]*([^\r\n]*?)[ \t]*\r\n", re.IGNORECASE)
_FRAMED = re.compile(
    rb"\r\n(?:content-length:|transfer-encoding:(?:[^\r\n]*[ \t,])?chunked[ \t]*\r\n)", re.IGNORECASE
)
_CONTROL = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0)), "\N{REPLACEMENT CHARACTER}")
_CONTROL |= dict.fromkeys(map(ord, "\t\r\n"), " ")
# Longer waits say nothing more: whoever honours this clamps it far below.
_LONGEST = 366 * 86400 * SECOND


def final_head(raw: bytes, interim: int) -> bytes:
    """The head of the answer in what was read from the start, behind `interim` 1xx heads."""
    for _ in range(interim):
        raw = raw.lstrip(b"\r\n").partition(b"\r\n\r\n")[2]
    return raw.lstrip(b"\r\n").partition(b"\r\n\r\n")[0] + b"\r\n"


def head_end(raw: bytes, interim: int) -> int:
    """How much of what was read from the start is the head of the answer, `interim` 1xx heads included."""
    rest = raw
    for _ in range(interim + 1):
        rest = rest.lstrip(b"\r\n").partition(b"\r\n\r\n")[2]
    return len(raw) - len(rest)


def is_framed(head: bytes) -> bool:
    """Whether the head says where the body ends; else it ends with the connection."""
    return _FRAMED.search(head) is not None


def retry_after(head: bytes, now: int) -> int | None:
    """The wait in microseconds that Retry-After asks for; None for none and for what is not valid.

    Whole seconds or an HTTP date, which is taken relative to `now`; what is past is no wait.
    """
    found = _RETRY_AFTER.search(head)
    if found is None:
        return None
    text = found[1].decode("latin-1")
    if re.fullmatch(r"-?[0-9]{1,15}", text, re.ASCII):
        return min(max(0, int(text) * SECOND), _LONGEST)
    if not text[:1].isalpha():
        return None  # every form of an HTTP date begins with the day's name
    try:
        moment = parsedate_to_datetime(text)
        # `-0000` and asctime dates come without a zone: HTTP dates are always UTC.
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
        return min(max(0, int(moment.timestamp()) * SECOND - now), _LONGEST)
    except (ValueError, OverflowError, TypeError, IndexError):
        return None


def excerpt(body: bytes) -> str | None:
    """The start of a body as text that is safe to show in a list; None for an empty one.

    Control characters are replaced. So is whatever is not to be seen itself but turns, hides or
    breaks the text around it: marks of direction, separators, tags, characters that mean nothing.
    """
    if not body:
        return None
    text = body[:EXCERPT_BYTES].decode("utf-8", "replace")[:EXCERPT]
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " for c in text.translate(_CONTROL))
