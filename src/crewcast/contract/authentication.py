"""How Crewcast shows itself to a subscriber that wants more than a signature: the headers that a kickoff asked for.

AMP's shape: `{"strategy": "bearer", "token"}`, `{"strategy": "basic", "username", "password"}`; and
`{"strategy": "headers", "headers": {...}}`. No text of an error has any of the values in it.
"""

import base64
from typing import Any

import msgspec

# What a receiver may take for proof of who calls. Headers that change what a request is or where it goes
# (Host, Content-*, Cookie, X-Forwarded-*, webhook-*) are not for a kickoff to choose.
HEADER_NAMES = frozenset(
    {
        "api-key",
        "apikey",
        "authorization",
        "cf-access-client-id",
        "cf-access-client-secret",
        "ocp-apim-subscription-key",
        "x-access-token",
        "x-api-key",
        "x-api-token",
        "x-auth-key",
        "x-auth-token",
        "x-authorization",
        "x-functions-key",
        "x-gitlab-token",
        "x-goog-api-key",
        "x-hook-secret",
        "x-hook-token",
        "x-secret",
        "x-secret-token",
        "x-shared-secret",
        "x-telegram-bot-api-secret-token",
        "x-token",
        "x-vercel-protection-bypass",
        "x-webhook-secret",
        "x-webhook-token",
    }
)
MAX_HEADERS = 8
MAX_LENGTH = 4096

_STRATEGIES = {
    "bearer": ("token",),
    "basic": ("username", "password"),
    "headers": ("headers",),
}


class Authentication(msgspec.Struct, frozen=True):
    """Headers by their lower-case names. Never shown: neither are they in its `repr`."""

    headers: tuple[tuple[str, str], ...]

    def __repr__(self) -> str:
        return f"Authentication({', '.join(name for name, _ in self.headers)})"

    def encode(self) -> bytes:
        """As it is sealed and stored."""
        return msgspec.json.encode(self)

    @staticmethod
    def decode(stored: bytes) -> "Authentication":
        return msgspec.json.decode(stored, type=Authentication)


class Unusable(ValueError):
    """`place` is the field below the authentication, `reason` the rest of a sentence that begins with it."""

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{place} {reason}".strip())
        self.place = place
        self.reason = reason


def parse(value: Any) -> Authentication:
    """The authentication in a JSON value.

    Raises Unusable.
    """
    if not isinstance(value, dict):
        raise Unusable("", 'must be an object, such as {"strategy": "bearer", "token": "..."}')
    strategy = value.get("strategy")
    if not isinstance(strategy, str) or strategy not in _STRATEGIES:
        raise Unusable("strategy", "must be bearer, basic or headers")
    needed = _STRATEGIES[strategy]
    if not set(value) <= {"strategy", *needed}:
        raise Unusable("", f"has a field that {strategy} does not: it takes {' and '.join(needed)}")
    if strategy == "bearer":
        return Authentication((("authorization", f"Bearer {_visible(value.get('token'), 'token')}"),))
    if strategy == "basic":
        pair = f"{_part(value, 'username')}:{_part(value, 'password')}"
        if ":" in value["username"]:
            raise Unusable("username", "must have no colon: it ends where the password begins")
        return Authentication((("authorization", f"Basic {base64.b64encode(pair.encode()).decode()}"),))
    return _headers(value.get("headers"))


def _headers(value: Any) -> Authentication:
    if not isinstance(value, dict) or not 0 < len(value) <= MAX_HEADERS:
        raise Unusable("headers", f"must be an object of 1 to {MAX_HEADERS} headers")
    found: dict[str, str] = {}
    for name, text in value.items():
        known = name.lower()
        if known not in HEADER_NAMES:
            raise Unusable(
                "headers", f"has a header that may not be set; there are: {', '.join(sorted(HEADER_NAMES))}"
            )
        if known in found:
            raise Unusable("headers", f"has {known} twice")
        found[known] = _visible(text, f"headers.{name}")
    return Authentication(tuple(found.items()))


def _part(value: dict[str, Any], name: str) -> str:
    """Of a basic authentication: any text, as it is told in base64, and as receivers can take it apart."""
    text = value.get(name)
    if not isinstance(text, str) or len(text) > MAX_LENGTH // 4 or any(c < " " or c == "\x7f" for c in text):
        raise Unusable(
            name, f"must be a text of at most {MAX_LENGTH // 4} characters, none a control character"
        )
    try:
        text.encode()
    except UnicodeEncodeError as e:
        raise Unusable(name, "must be a text that UTF-8 can write") from e
    return text


def _visible(value: Any, place: str) -> str:
    """A text that a header can have as its value, the same at the other end."""
    fits = (
        isinstance(value, str)
        and 0 < len(value) <= MAX_LENGTH
        and value == value.strip()
        and all(" " <= c <= "~" for c in value)
    )
    if not fits:
        raise Unusable(
            place,
            f"must be a text of 1 to {MAX_LENGTH} characters of visible ASCII, without spaces around it",
        )
    return str(value)
