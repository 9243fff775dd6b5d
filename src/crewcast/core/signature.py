"""Standard Webhooks signatures: `v1`, an HMAC with a secret, and `v1a`, ed25519 with a key pair.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md

Only what has to do with ed25519 needs the package `cryptography`, which is imported when it is needed.
"""

import base64
import binascii
import hashlib
import hmac
from binascii import b2a_base64
from typing import TYPE_CHECKING

from crewcast.core.errors import SignatureError

if TYPE_CHECKING:  # the one import that not everybody has
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SECRET = "whsec_"  # noqa: S105 - what a secret begins with
PRIVATE = "whsk_"
PUBLIC = "whpk_"

# A signature of ours for each secret that overlaps fits in here; whoever sends more wants to keep us busy.
MOST_CHECKED = 16


def hkdf(master: bytes, info: bytes, length: int = 32) -> bytes:
    """HKDF-SHA256 (RFC 5869) without a salt: the master secret is uniformly random already."""
    key = hmac.digest(bytes(32), master, "sha256")
    block, out = b"", b""
    for n in range(1, -(-length // hashlib.sha256().digest_size) + 1):
        block = hmac.digest(key, block + info + bytes([n]), "sha256")
        out += block
    return out[:length]


def origin_secret(master: bytes, origin: str, generation: int = 0) -> str:
    """The signing secret of an origin (`https://host:port`) as subscribers are given it: `whsec_...`.

    Each origin has its own, so no subscriber can forge a delivery to another.
    """
    return SECRET + base64.b64encode(hkdf(master, _info(b"v1", origin, generation))).decode()


def origin_key_pair(master: bytes, origin: str, generation: int = 0) -> "KeyPair":
    """The ed25519 key pair of an origin.

    Each origin has its own here too. A subscriber cannot sign with a public key, but what it is sent is signed
    without a word of whom it is for: with one pair for all, it could pass its deliveries on to another
    subscriber, who would find them signed.
    """
    return KeyPair(hkdf(master, _info(b"v1a", origin, generation)))


def _info(scheme: bytes, origin: str, generation: int) -> bytes:
    """What a key is derived for. An origin begins with its scheme, so no two of these are alike."""
    numbered = b"generation-%d/" % generation if generation else b""
    return b"crewcast/webhook/" + scheme + b"/" + numbered + origin.encode()


def key_of(secret: str) -> bytes:
    """The HMAC key in a `whsec_...` text; missing base64 padding is forgiven.

    Raises SignatureError if it is empty or not base64.
    """
    key = _decoded(secret.removeprefix(SECRET), "the webhook secret is not base64 behind `whsec_`")
    if not key:
        raise SignatureError("the webhook secret is empty")
    return key


def public_key_of(text: str) -> bytes:
    """The 32 bytes in a `whpk_...` text.

    Raises SignatureError if they are not.
    """
    key = _decoded(text.removeprefix(PUBLIC), "the public key is not base64 behind `whpk_`")
    if len(key) != 32:
        raise SignatureError(f"the public key has {len(key)} bytes behind `whpk_`, not 32")
    return key


def _decoded(text: str, complaint: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as e:
        raise SignatureError(complaint) from e


def signed_content(message_id: str, timestamp: int, body: bytes) -> bytes:
    """What every scheme signs."""
    return b"%b.%d.%b" % (message_id.encode(), timestamp, body)


class Signer:
    """Signs with one key again and again.

    The key is hashed once, and unlike `hmac.digest` a copied state gives up the interpreter's lock only for
    bodies over 2 KB: with another thread at work, taking it back costs several times the signature.
    """

    def __init__(self, key: bytes) -> None:
        self._state = hmac.new(key, digestmod="sha256")

    def sign(self, message_id: str, timestamp: int, body: bytes) -> str:
        """`v1,<base64>` over `id.timestamp.body`; the timestamp is in whole seconds."""
        return self.sign_content(signed_content(message_id, timestamp, body))

    def sign_content(self, content: bytes) -> str:
        state = self._state.copy()
        state.update(content)
        return "v1," + b2a_base64(state.digest(), newline=False).decode()


class KeyPair:
    """An ed25519 key pair from its 32 byte seed. Needs `cryptography`."""

    def __init__(self, seed: bytes) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        self._seed = seed
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self._public = self._private.public_key().public_bytes_raw()

    @property
    def public(self) -> str:
        """`whpk_...`, for whoever verifies."""
        return PUBLIC + base64.b64encode(self._public).decode()

    @property
    def private(self) -> str:
        """`whsk_...`, the seed with the public key behind it, as Standard Webhooks' tools have it."""
        return PRIVATE + base64.b64encode(self._seed + self._public).decode()

    @property
    def id(self) -> str:
        """A short name of the public key."""
        return hashlib.sha256(self._public).hexdigest()[:16]

    def sign_content(self, content: bytes) -> str:
        """`v1a,<base64>`."""
        return "v1a," + b2a_base64(self._private.sign(content), newline=False).decode()


def sign(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """As `Signer.sign`, once."""
    return Signer(key).sign(message_id, timestamp, body)


def verify(key: bytes, message_id: str, timestamp: int, body: bytes, signatures: str) -> bool:
    """Whether one of the space-separated `signatures` is a `v1` of ours. Constant time for each."""
    expected = sign(key, message_id, timestamp, body).encode()
    found = False
    for candidate in signatures.split(" "):
        found |= hmac.compare_digest(expected, candidate.encode(errors="replace"))
    return found


def verify_public(key: bytes, message_id: str, timestamp: int, body: bytes, signatures: str) -> bool:
    """Whether one of the space-separated `signatures` is a `v1a` by the pair of this public key.

    Looks at the first sixteen of them. Raises ModuleNotFoundError where `cryptography` is not installed.
    """
    from cryptography.exceptions import InvalidSignature

    public = _public(key)
    content = signed_content(message_id, timestamp, body)
    asymmetric = [one.removeprefix("v1a,") for one in signatures.split(" ") if one.startswith("v1a,")]
    for candidate in asymmetric[:MOST_CHECKED]:
        try:
            public.verify(base64.b64decode(candidate, validate=True), content)
        except (binascii.Error, ValueError, InvalidSignature):
            continue
        return True
    return False


def _public(key: bytes) -> "Ed25519PublicKey":
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    return Ed25519PublicKey.from_public_bytes(key)
