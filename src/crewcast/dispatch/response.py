"""What a subscriber's answer says, read with suspicion. Pure."""

import re
from datetime import UTC
from email.utils import parsedate_to_datetime

from crewcast.core.backoff import SECOND

EXCERPT = 512  # characters of a response body that are kept

_RETRY_AFTER = re.compile(rb"\r\nretry-after:[ \t]*([^\r\n]*?)[ \t]*\r\n", re.IGNORECASE)
_FRAMED = re.compile(rb"\r\n(?:content-length|transfer-encoding):", re.IGNORECASE)
_CONTROL = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0)), "\N{REPLACEMENT CHARACTER}")
_CONTROL |= dict.fromkeys(map(ord, "\t\r\n"), " ")
# What turns or hides the text around it on a screen; line and paragraph separators.
_CONTROL |= dict.fromkeys(
    (0x61C, *range(0x200B, 0x2010), *range(0x2028, 0x202F), *range(0x2066, 0x206A)), " "
)
# Longer waits say nothing more: whoever honours this clamps it far below.
_LONGEST = 366 * 86400 * SECOND


def final_head(raw: bytes, interim: int) -> bytes:
    """The head of the answer in what was read from the start, behind `interim` 1xx heads."""
    for _ in range(interim):
        raw = raw.lstrip(b"\r\n").partition(b"\r\n\r\n")[2]
    return raw.lstrip(b"\r\n").partition(b"\r\n\r\n")[0] + b"\r\n"


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
    """The start of a body as text that is safe to show in a list; None for an empty one."""
    if not body:
        return None
    text = body[: 4 * EXCERPT].decode("utf-8", "replace")[:EXCERPT]
    return text if text.isascii() and text.isprintable() else text.translate(_CONTROL)
