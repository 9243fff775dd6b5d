"""Standard Webhooks signatures and the secret of an origin.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import binascii
import hashlib
import hmac
from binascii import b2a_base64

from crewcast.core.errors import SignatureError

PREFIX = "whsec_"


def hkdf(master: bytes, info: bytes, length: int = 32) -> bytes:
    """HKDF-SHA256 (RFC 5869) without a salt: the master secret is uniformly random already."""
    key = hmac.digest(bytes(32), master, "sha256")
    block, out = b"", b""
    for n in range(1, -(-length // hashlib.sha256().digest_size) + 1):
        block = hmac.digest(key, block + info + bytes([n]), "sha256")
        out += block
    return out[:length]


def origin_secret(master: bytes, origin: str) -> str:
    """The signing secret of an origin (`https://host:port`) as subscribers are given it: `whsec_...`.

    Each origin has its own, so no subscriber can forge a delivery to another.
    """
    key = hkdf(master, b"crewcast/webhook/v1/" + origin.encode())
    return PREFIX + base64.b64encode(key).decode()


def key_of(secret: str) -> bytes:
    """The HMAC key in a `whsec_...` text; missing base64 padding is forgiven.

    Raises SignatureError if it is empty or not base64.
    """
    text = secret.removeprefix(PREFIX)
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as e:
        raise SignatureError("the webhook secret is not base64 behind `whsec_`") from e
    if not key:
        raise SignatureError("the webhook secret is empty")
    return key


class Signer:
    """Signs with one key again and again.

    The key is hashed once, and unlike `hmac.digest` a copied state gives up the interpreter's lock only for
    bodies over 2 KB: with another thread at work, taking it back costs several times the signature.
    """

    def __init__(self, key: bytes) -> None:
        self._state = hmac.new(key, digestmod="sha256")

    def sign(self, message_id: str, timestamp: int, body: bytes) -> str:
        """`v1,<base64>` over `id.timestamp.body`; the timestamp is in whole seconds."""
        state = self._state.copy()
        state.update(b"%b.%d.%b" % (message_id.encode(), timestamp, body))
        return "v1," + b2a_base64(state.digest(), newline=False).decode()


def sign(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """As `Signer.sign`, once."""
    return Signer(key).sign(message_id, timestamp, body)


def verify(key: bytes, message_id: str, timestamp: int, body: bytes, signatures: str) -> bool:
    """Whether one of the space-separated `signatures` is ours. Constant time for each."""
    expected = sign(key, message_id, timestamp, body).encode()
    found = False
    for candidate in signatures.split(" "):
        found |= hmac.compare_digest(expected, candidate.encode())
    return found
