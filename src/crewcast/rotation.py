"""A rotation of secrets is in force on every node of its store, soon after it was committed."""

import asyncio
import logging

from crewcast.clock import Clock
from crewcast.core.backoff import SECOND
from crewcast.core.errors import StoreError
from crewcast.core.keyring import KeyRing
from crewcast.store.protocol import Hint, Store, level

log = logging.getLogger("crewcast.keys")

EVERY = 1 * SECOND


class RotationFollower:
    """Turns a key ring to the rotations of its store: at once after one that this node committed, and within
    `EVERY` after one that another process did.
    """

    def __init__(self, store: Store, clock: Clock, keys: KeyRing) -> None:
        self._store = store
        self._clock = clock
        self._keys = keys
        self._hinted = asyncio.Event()
        store.listen(self._on_hint)

    def _on_hint(self, hint: Hint, _origin: str) -> None:
        if hint is Hint.ROTATED:
            self._hinted.set()

    async def run(self) -> None:
        """Until cancelled. An error of the store is waited out, and told once."""
        failing = False
        while True:
            self._hinted.clear()
            try:
                self._keys.turn(await self._store.rotations())
                failing = False
            except StoreError as e:
                if not failing:
                    log.log(level(e), "rotations of secrets cannot be read, those known stay in force: %s", e)
                failing = True
            await self._clock.wait(self._hinted, EVERY)
