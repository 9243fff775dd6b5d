"""Links that let a person decide a review without a token: whoever has one may decide that review, once."""

import base64
import hmac
import uuid
from hashlib import sha256

PATH = "/reviews/"
_MAC = 20  # bytes: what RFC 2104 allows of SHA-256, and short enough for a link
_ID = 16


class ReviewLinks:
    """`key` is 32 secret bytes for this alone; `base` is where people reach the server (`public_url`), None: nowhere.

    A link is derived, not stored, so every node makes the same. That it decides once is the review's own rule; that
    it ends is the review's deadline.
    """

    def __init__(self, key: bytes, base: str | None) -> None:
        self._key = key
        self._base = None if base is None else base.rstrip("/")

    def url(self, run_id: str, number: int) -> str | None:
        return None if self._base is None else f"{self._base}{PATH}{self.token(run_id, number)}"

    def token(self, run_id: str, number: int) -> str:
        name = uuid.UUID(run_id).bytes + number.to_bytes(4, "big")
        return _text(name + self._mac(name))

    def read(self, token: str) -> tuple[str, int] | None:
        """The run's id and the review's number; None for what was not made by `token`."""
        try:
            found = base64.b64decode(token.encode("ascii") + b"=" * (-len(token) % 4), b"-_", validate=True)
        except ValueError:
            return None
        name, mac = found[:-_MAC], found[-_MAC:]
        if len(name) != _ID + 4 or not hmac.compare_digest(mac, self._mac(name)) or _text(found) != token:
            return None
        return str(uuid.UUID(bytes=name[:_ID])), int.from_bytes(name[_ID:], "big")

    def _mac(self, name: bytes) -> bytes:
        return hmac.digest(self._key, b"crewcast/review/v1/" + name, sha256)[:_MAC]


def _text(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode("ascii")
