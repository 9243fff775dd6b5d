"""Rotation: which of an origin's secrets sign at a moment. Secrets are derived, so a generation is a number.

A rotation draws the next number, for one origin or for all. An origin has generation 0 and those of the rotations
that meant it; the newest signs, and older ones sign beside it until their time is over.
"""

from collections.abc import Iterable, Sequence

from msgspec import Struct

EVERY_ORIGIN = ""
# Each one is a signature more on every delivery, with ed25519 two.
MOST_AT_ONCE = 5


class Rotation(Struct, frozen=True, gc=False):
    """`number` is the new generation's, growing over the whole server. `origin` may be `EVERY_ORIGIN`.

    `at` is when it began to sign, `until` when all that is older ends at the latest. Microseconds.
    """

    number: int
    origin: str
    at: int
    until: int


class Generation(Struct, frozen=True, gc=False):
    """`since` is None for the first one, `until` for the newest."""

    number: int
    since: int | None = None
    until: int | None = None


class Rotations:
    """All that there were, by the origin that they meant."""

    def __init__(self, rotations: Iterable[Rotation] = ()) -> None:
        self.listed = sorted(rotations, key=lambda one: one.number)
        self._by_origin: dict[str, list[Rotation]] = {}
        for one in self.listed:
            self._by_origin.setdefault(one.origin, []).append(one)

    def generations(self, origin: str) -> list[Generation]:
        """The origin's, the newest first; of `EVERY_ORIGIN`, those that all origins have."""
        meant = {one.number: one for of in (EVERY_ORIGIN, origin) for one in self._by_origin.get(of, ())}
        found: list[Generation] = []
        until: int | None = None
        for number in sorted(meant, reverse=True):
            one = meant[number]
            found.append(Generation(number, one.at, until))
            # What is older still ends no later: an overlap of nothing ends every older secret at once.
            until = one.until if until is None else min(until, one.until)
        found.append(Generation(0, None, until))
        return found

    def next(self, origin: str, now: int, until: int) -> Rotation | None:
        """The rotation that comes next; None if an origin would then have more than `MOST_AT_ONCE` secrets."""
        if until < now:
            raise ValueError("an overlap cannot end before it begins")
        new = Rotation(self.listed[-1].number + 1 if self.listed else 1, origin, now, until)
        after = Rotations([*self.listed, new])
        meant = after._by_origin if origin == EVERY_ORIGIN else (origin,)
        if any(len(signing(after.generations(one), now)) > MOST_AT_ONCE for one in meant):
            return None
        return new


def signing(found: Sequence[Generation], now: int) -> list[Generation]:
    """Those that sign now, the newest first. The newest always does, also when a clock was set back."""
    return [one for one in found if one.until is None or now < one.until]
