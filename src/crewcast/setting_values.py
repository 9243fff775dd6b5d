"""How the text of a flag or a variable, or what the file has, becomes a setting's value.

Each function raises ValueError with a reason that does not repeat what was given: it may be a secret.
"""

import base64
import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from crewcast.core.node import Role
from crewcast.dispatch.egress import host_pattern
from crewcast.dispatch.proxy import Proxy
from crewcast.dispatch.proxy import parse as parse_proxy

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def whole(low: int, high: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        number = int(str(value))
        if not low <= number <= high:
            raise ValueError(f"must be between {low} and {high}")
        return number

    return parse


def seconds(value: Any) -> float:
    number = float(str(value))
    if not 0 <= number <= 365 * 86400:
        raise ValueError("must be a number of seconds, at least 0")
    return number


def rhythm(value: Any) -> float:
    """Seconds between what comes again and again; 0 for never."""
    number = seconds(value)
    if 0 < number < 1:
        raise ValueError("must be at least a second, or 0")
    return number


def limit(value: Any) -> float:
    number = seconds(value)
    if number == 0:
        raise ValueError("must be more than 0 seconds")
    return number


def rate(value: Any) -> float:
    number = float(str(value))
    if number != 0 and not 0.001 <= number <= 100_000:
        raise ValueError("must be a number a second between 0.001 and 100000, or 0")
    return number


def lease(value: Any) -> float:
    number = seconds(value)
    if not 1 <= number <= 86400:
        raise ValueError("must be at least a second, and at most a day")
    return number


def roles(value: Any) -> tuple[Role, ...]:
    """In the order of the list of roles, each once."""
    parts = value if isinstance(value, list) else str(value).split(",")
    named = {str(part).strip().lower() for part in parts}
    if not named <= set(Role):
        raise ValueError(f"must be some of {', '.join(Role)}, separated by commas")
    return tuple(role for role in Role if role in named)


def database_url(value: Any) -> str:
    found = text(value)
    try:
        target = urlsplit(found)
        _ = target.port
    except ValueError:
        target = urlsplit("")
    if target.scheme not in ("postgresql", "postgres"):
        raise ValueError("must be postgresql://USER:PASSWORD@HOST:PORT/NAME")
    return found


def schedule(value: Any) -> tuple[float, ...]:
    parts = value if isinstance(value, list) else str(value).split(",")
    waits = tuple(seconds(part) for part in parts)
    if not waits:
        raise ValueError("needs at least one wait in seconds")
    return waits


def networks(value: Any) -> tuple[Network, ...]:
    parts = value if isinstance(value, list) else [part for part in str(value).split(",") if part.strip()]
    return tuple(ipaddress.ip_network(str(part).strip()) for part in parts)


def hosts(value: Any) -> tuple[str, ...]:
    parts = value if isinstance(value, list) else [part for part in str(value).split(",") if part.strip()]
    return tuple(host_pattern(str(part).strip()) for part in parts)


def proxy(value: Any) -> Proxy:
    return parse_proxy(text(value))


def text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must not be empty")
    return value.strip()


def path(value: Any) -> Path:
    return Path(text(value)).expanduser()


def key(value: Any) -> bytes:
    try:
        found = base64.b64decode(text(value), validate=True)
    except ValueError as e:
        raise ValueError("must be 32 bytes in base64, as `openssl rand -base64 32` prints them") from e
    if len(found) != 32:
        raise ValueError(f"must be 32 bytes in base64, and is {len(found)}")
    return found


def signatures(value: Any) -> tuple[str, ...]:
    parts = value if isinstance(value, list) else str(value).split(",")
    named = {str(part).strip() for part in parts}
    if named not in ({"v1"}, {"v1", "v1a"}):
        raise ValueError("must be v1, or v1,v1a")
    return tuple(sorted(named))


def flag(value: Any) -> bool:
    words = {
        "1": True,
        "true": True,
        "yes": True,
        "on": True,
        "0": False,
        "false": False,
        "no": False,
        "off": False,
    }
    try:
        return words[str(value).lower()]
    except KeyError:
        raise ValueError("must be true or false") from None


def level(value: Any) -> str:
    found = str(value).lower()
    if found not in ("debug", "info", "warning", "error"):
        raise ValueError("must be debug, info, warning or error")
    return found


def choice(*words: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        found = str(value).strip().lower()
        if found not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return found

    return parse


def switch(value: Any) -> bool:
    """A flag that is on unless it is said otherwise, so it takes a value."""
    return flag(value)


def public_url(value: Any) -> str:
    found = text(value).rstrip("/")
    target = urlsplit(found)
    if target.scheme not in ("http", "https") or not target.hostname or target.query or target.fragment:
        raise ValueError("must be where people reach the server, such as https://crews.example.com")
    return found
