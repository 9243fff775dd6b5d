"""What everybody meets at once, again and again, is said once: that it began, and that it is over."""

import logging
import time
from collections.abc import Callable

from crewcast.core.errors import StoreAway, StoreError, StoreFull

log = logging.getLogger("crewcast.store")

# Seconds without a further failure until it is over: longer than the pause of whoever tries again, so that a database
# that answers some and refuses others does not come and go at each try.
QUIET = 2.0


class Trouble:
    """A database that does not answer, or has no room: an outage of one node's store is two lines of its log."""

    def __init__(self, shown: str, steady: Callable[[], float] = time.monotonic) -> None:
        self._shown = shown
        self._steady = steady
        self._met: dict[type[StoreError], float] = {}  # what was met, and when last

    def meet(self, error: StoreError) -> None:
        """Somebody met it."""
        for kind in (StoreAway, StoreFull):
            if isinstance(error, kind):
                if kind not in self._met:
                    log.error("%s Meanwhile nothing is accepted; runs and deliveries wait.", error)
                self._met[kind] = self._steady()

    def answered(self, *, wrote: bool) -> None:
        """A statement or a transaction was answered; what only reads needs no room."""
        if not self._met:
            return
        now = self._steady()
        self._end(StoreAway, now, "PostgreSQL at %s answers again: what waited goes on")
        if wrote:
            self._end(StoreFull, now, "PostgreSQL at %s can be written again: what waited goes on")

    def _end(self, kind: type[StoreError], now: float, text: str) -> None:
        if kind in self._met and now - self._met[kind] >= QUIET:
            del self._met[kind]
            log.warning(text, self._shown)
