"""The headers of a delivery, out of whatever a framework has them in."""

from collections.abc import Iterable
from typing import Any, Protocol

OURS = ("webhook-", "crewcast-")
# As WSGI has them, and Django's `request.META`.
_CGI = "HTTP_"


class HasItems(Protocol):
    """A mapping, as far as it is needed: a dict, and the headers of Starlette, Flask, Django or http.server."""

    def items(self) -> Iterable[tuple[Any, Any]]: ...


Headers = HasItems | Iterable[tuple[Any, Any]]


def ours(headers: Headers) -> dict[str, str]:
    """Standard Webhooks' headers and Crewcast's, by their lower-case names.

    Names and values may be text or bytes. Of a header that comes twice the first counts.
    """
    pairs = headers.items() if hasattr(headers, "items") else headers
    found: dict[str, str] = {}
    rewritten: dict[str, str] = {}
    for raw, value in pairs:
        name = _text(raw)
        if name.startswith(_CGI):
            name, into = name.removeprefix(_CGI).replace("_", "-"), rewritten
        else:
            into = found
        name = name.lower()
        if name.startswith(OURS):
            into.setdefault(name, _text(value))
    return rewritten | found


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
