"""Webhook URLs: what is accepted at kickoff, and the origin that limits and secrets belong to."""

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

DEFAULT_PORTS = {"http": 80, "https": 443}
MAX_LENGTH = 2048

# Host and port, nothing else: what Python's parser lets pass around brackets differs between its releases.
_NETLOC = re.compile(r"(?:\[[^\[\]@]*\]|[^\[\]@:]+)(?::[0-9]*)?")
# A last label that resolvers may take for a number: `127.1`, `0x7f.1`, `2130706433`, `0177.0.0.1`.
_NUMERIC = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Target:
    """A webhook URL taken apart. `host` is lower-case ASCII without brackets; `path` has the query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """The Host header: the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.authority}"


def parse(url: str) -> Target:
    """Takes an absolute http(s) URL apart.

    Raises ValueError with a sentence that says what is wrong. No DNS is done. One host has one
    spelling in the result, since limits, health and the signing secret belong to the origin.
    """
    if len(url) > MAX_LENGTH:
        raise ValueError(f"is longer than {MAX_LENGTH} characters")
    if any(c <= " " or c in "\x7f\\" for c in url):
        raise ValueError("has a space, a control character or a backslash in it; percent-encode it")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as e:
        raise ValueError("is not a valid URL") from e
    scheme = parts.scheme.lower()
    if scheme not in DEFAULT_PORTS or not parts.netloc:
        raise ValueError("is not an absolute http(s) URL")
    if "@" in parts.netloc:
        raise ValueError("carries credentials; Crewcast never sends them from a URL")
    if not _NETLOC.fullmatch(parts.netloc):
        raise ValueError("has a host name that is not valid")
    if port == 0:
        raise ValueError("names port 0")
    bracketed = parts.netloc.startswith("[")
    host = _ipv6(parts.hostname or "") if bracketed else _name(parts.hostname or "")
    return Target(scheme, host, port or DEFAULT_PORTS[scheme], _path(parts.path, parts.query))


def is_numeric(host: str) -> bool:
    """Whether some resolver may read the name as an IPv4 address, in whatever spelling."""
    return _NUMERIC.fullmatch(host.removesuffix(".")) is not None


def _ipv6(text: str) -> str:
    if "%" in text:
        raise ValueError("has an IPv6 address with a zone id, which means nothing outside one machine")
    try:
        address = ipaddress.IPv6Address(text)
        if address.ipv4_mapped is None:
            return str(address)
        # Python 3.13 writes these with dots. A host has one spelling whatever runs us: its secret depends on it.
        last = int(address) & 0xFFFFFFFF
        return f"::ffff:{last >> 16:x}:{last & 0xFFFF:x}"
    except ValueError as e:
        raise ValueError("has an IPv6 address that is not valid") from e


def _name(name: str) -> str:
    # Longer names are invalid anyway, and the codec below takes long over long ones.
    if len(name) > 254:
        raise ValueError("has a host name that is not valid")
    if not name.isascii():
        try:
            name = name.encode("idna").decode().lower()
        except UnicodeError as e:
            raise ValueError("has a host name that is not valid") from e
    name = name.removesuffix(".")
    labels = name.split(".")
    if len(name) > 253 or not all(0 < len(label) < 64 for label in labels):
        raise ValueError("has a host name that is not valid")
    if not all(c.isalnum() or c in "-_" for label in labels for c in label):
        raise ValueError("has a host name that is not valid")
    if is_numeric(name):
        try:
            ipaddress.IPv4Address(name)
        except ValueError as e:
            raise ValueError("has an IPv4 address that is not four decimal numbers") from e
    return name


def _path(path: str, query: str) -> str:
    path = path or "/"
    if not path.isascii() or not query.isascii():
        raise ValueError("has a character outside ASCII in its path or query; percent-encode it")
    return f"{path}?{query}" if query else path


def redacted(url: str) -> str:
    """The URL for logs, lists and screens: queries of webhook URLs are secrets."""
    head, mark, _query = url.partition("?")
    return f"{head}?..." if mark else head
