"""What a server signs with: for each origin the secrets and key pairs that are in force."""

from collections.abc import Iterable
from weakref import WeakValueDictionary

from msgspec import Struct

from crewcast.core.backoff import SECOND
from crewcast.core.generation import Generation, Rotation, Rotations, signing
from crewcast.core.signature import KeyPair, Signer, key_of, origin_key_pair, origin_secret, signed_content


class PublicKey(Struct, frozen=True):
    """A `whpk_...` that verifies what is sent to an origin, and the generation that it belongs to."""

    id: str
    key: str
    generation: Generation


class KeyRing:
    """The master key and the rotations so far. With `asymmetric` deliveries have ed25519 signatures too."""

    def __init__(
        self, master: bytes, rotations: Iterable[Rotation] = (), *, asymmetric: bool = False
    ) -> None:
        self.asymmetric = asymmetric
        self._master = master
        self._rotations = Rotations(rotations)
        self._signers: WeakValueDictionary[str, OriginSigner] = WeakValueDictionary()

    def turn(self, rotations: Iterable[Rotation]) -> None:
        """Puts all that there were in force, in signers that are in use too.

        Whoever read no rotation that is new changes nothing: rotations are only ever added.
        """
        read = list(rotations)
        if len(read) <= len(self._rotations.listed):
            return
        self._rotations = Rotations(read)
        for signer in self._signers.values():
            signer.renew()

    def signer(self, origin: str) -> "OriginSigner":
        """Follows rotations for as long as it is held."""
        signer = self._signers.get(origin)
        if signer is None:
            signer = self._signers[origin] = OriginSigner(self, origin)
        return signer

    def generations(self, origin: str) -> list[Generation]:
        return self._rotations.generations(origin)

    def secret(self, origin: str, generation: int) -> str:
        return origin_secret(self._master, origin, generation)

    def key_pair(self, origin: str, generation: int) -> KeyPair:
        return origin_key_pair(self._master, origin, generation)

    def public_keys(self, origin: str, now: int) -> list[PublicKey]:
        """Those that verify what is sent now, the newest first; none without `asymmetric`."""
        if not self.asymmetric:
            return []
        found = []
        for generation in signing(self.generations(origin), now):
            pair = self.key_pair(origin, generation.number)
            found.append(PublicKey(pair.id, pair.public, generation))
        return found


class OriginSigner:
    """Signs what is sent to one origin, with every secret that is in force at the moment of signing."""

    def __init__(self, ring: KeyRing, origin: str) -> None:
        self._ring = ring
        self._origin = origin
        self._signers: list[Signer | KeyPair] = []
        self.renew()

    def renew(self) -> None:
        """The keys are looked up anew at the next signature."""
        self._until = 0  # microseconds

    def sign(self, message_id: str, timestamp: int, body: bytes) -> str:
        """The `webhook-signature` over `id.timestamp.body`; the timestamp is in whole seconds."""
        # The end of the second: a secret that ended within it signs nothing more, as soon as that is known.
        now = timestamp * SECOND + SECOND - 1
        if self._until <= now:
            self._look_up(now)
        content = signed_content(message_id, timestamp, body)
        return " ".join([signer.sign_content(content) for signer in self._signers])

    def _look_up(self, now: int) -> None:
        ring, origin = self._ring, self._origin
        found = signing(ring.generations(origin), now)
        self._signers = [Signer(key_of(ring.secret(origin, one.number))) for one in found]
        if ring.asymmetric:
            self._signers += [ring.key_pair(origin, one.number) for one in found]
        self._until = min((one.until for one in found if one.until is not None), default=_NEVER)


_NEVER = 1 << 63
