"""Webhook URLs: what is accepted at kickoff, and the origin that limits and secrets belong to."""

from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

DEFAULT_PORTS = {"http": 80, "https": 443}
MAX_LENGTH = 2048


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

    Raises ValueError with a sentence that says what is wrong. No DNS is done.
    """
    if len(url) > MAX_LENGTH:
        raise ValueError(f"is longer than {MAX_LENGTH} characters")
    if any(c <= " " or c in "\x7f\\" for c in url):
        raise ValueError("has a space, a control character or a backslash in it; percent-encode it")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as e:
        raise ValueError(f"is not a valid URL ({e})") from e
    scheme = parts.scheme.lower()
    if scheme not in DEFAULT_PORTS or not parts.netloc:
        raise ValueError("is not an absolute http(s) URL")
    if "@" in parts.netloc:
        raise ValueError("carries credentials; Crewcast never sends them from a URL")
    if port == 0:
        raise ValueError("names port 0")
    return Target(scheme, _host(parts), port or DEFAULT_PORTS[scheme], _path(parts))


def _host(parts: SplitResult) -> str:
    name = parts.hostname or ""
    if not name.isascii():
        try:
            name = name.encode("idna").decode()
        except UnicodeError as e:
            raise ValueError("has a host name that is not valid") from e
    name = name.rstrip(".")
    if ":" not in name:
        labels = name.split(".")
        if len(name) > 253 or not all(0 < len(label) < 64 for label in labels):
            raise ValueError("has a host name that is not valid")
        if not all(c.isalnum() or c in "-_" for label in labels for c in label):
            raise ValueError("has a host name that is not valid")
    return name


def _path(parts: SplitResult) -> str:
    path = parts.path or "/"
    if not path.isascii() or not parts.query.isascii():
        raise ValueError("has a character outside ASCII in its path or query; percent-encode it")
    return f"{path}?{parts.query}" if parts.query else path


def redacted(url: str) -> str:
    """The URL for logs, lists and screens: queries of webhook URLs are secrets."""
    head, mark, _query = url.partition("?")
    return f"{head}?..." if mark else head
