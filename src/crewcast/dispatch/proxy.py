"""The forward proxy that webhooks may have to go through: what is said to it, and what its answer means. Pure.

The proxy is told an address (CONNECT 203.0.114.7:443), never a name: the address is the one that the egress
guard has checked. A proxy that looked the name up by itself would decide where the webhook goes, and the
guard would be void.
"""

import base64
import re
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from urllib.parse import unquote_to_bytes

from crewcast.core import url
from crewcast.dispatch.egress import Address

MOST_ANSWER = 16 * 1024  # bytes of an answer to CONNECT
END = b"\r\n\r\n"

_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: |\r\n)")
_SAID = {403: "forbids the connection", 407: "wants other credentials"}


@dataclass(frozen=True, slots=True)
class Proxy:
    """`authorization` is the value of Proxy-Authorization. It is never shown and never logged."""

    host: str
    port: int
    authorization: bytes | None = field(default=None, repr=False)


def parse(text: str) -> Proxy:
    """A proxy from `http://host:port` or `http://user:password@host:port`.

    Raises ValueError with a sentence that repeats nothing of the text, since there may be a password in it.
    """
    scheme, mark, rest = text.partition("://")
    if scheme.lower() != "http" or not mark:
        raise ValueError("must begin with http://: proxies are spoken to in plain HTTP")
    credentials, at, place = rest.removesuffix("/").rpartition("@")
    if not re.search(r":[0-9]+$", place):
        raise ValueError("must be http://HOST:PORT or http://USER:PASSWORD@HOST:PORT")
    if set(place) & set("/?#"):
        raise ValueError("must have no path")
    target = url.parse(f"http://{place}")
    authorization = None
    if at:
        user, colon, password = credentials.partition(":")
        if not colon or not user:
            raise ValueError("must have both a user and a password, or neither")
        pair = unquote_to_bytes(user) + b":" + unquote_to_bytes(password)
        authorization = b"Basic " + base64.b64encode(pair)
    return Proxy(target.host, target.port, authorization)


def request(proxy: Proxy, address: Address, port: int) -> bytes:
    place = f"[{address}]:{port}" if isinstance(address, IPv6Address) else f"{address}:{port}"
    lines = [f"CONNECT {place} HTTP/1.1".encode(), f"Host: {place}".encode()]
    if proxy.authorization is not None:
        lines.append(b"Proxy-Authorization: " + proxy.authorization)
    return b"\r\n".join(lines) + END


def refusal(answer: bytes) -> str | None:
    """What a whole answer to CONNECT says against the connection; None if it is made."""
    status = _STATUS.match(answer)
    if status is None:
        return "the proxy's answer is not valid HTTP"
    code = int(status[1])
    if not 200 <= code < 300:
        return f"the proxy {_SAID.get(code, 'made no connection')} (status {code})"
    # Nothing can follow: the subscriber has not been spoken to, and what is left here would be taken
    # for the beginning of its answer.
    return None if answer.endswith(END) and answer.count(END) == 1 else "the proxy says more than its answer"
