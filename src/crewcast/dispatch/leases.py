"""By which tokens a dispatcher holds its lanes, and which of them surely hold."""

import secrets
from collections.abc import Iterable

from crewcast.clock import Clock


class Leases:
    """`token` is what lanes are claimed with from now on. Lanes that were claimed with another one keep that.

    Where dispatchers share a store, one that was suspended may have lost some of its lanes, and is not told which. So a
    token that was not prolonged in time has lapsed for good: its lanes are given back as the store has them, and nothing
    more is sent. Who has the store alone loses none.
    """

    def __init__(self, clock: Clock, length: int, *, shared: bool) -> None:
        self._clock = clock
        self._length = length
        self._shared = shared
        self._until: dict[str, int] = {}
        self.change()

    def change(self) -> None:
        self.token = secrets.token_hex(16)

    def next_end(self) -> int:
        """Until when a lease holds that is asked for now."""
        return self._clock.now() + self._length

    def prolonged(self, token: str, until: int) -> None:
        """The store has said so. An answer that comes after the end is too late: others may have come before it."""
        if not self.lapsed(token):
            self._until[token] = max(until, self._until.get(token, 0))

    def lapsed(self, token: str | None) -> bool:
        if not self._shared or token is None:
            return False
        until = self._until.get(token)
        return until is not None and until <= self._clock.now()

    def keep(self, tokens: Iterable[str]) -> None:
        """Forgets all others, by which nothing is held any more."""
        kept = {self.token, *tokens}
        self._until = {token: until for token, until in self._until.items() if token in kept}
