"""What both engines tell of a commit, and to whom in their own process."""

import logging
from collections.abc import Callable

from crewcast.core.run import Run, RunState
from crewcast.store.protocol import Hint, HintListener

log = logging.getLogger("crewcast.store")

Hinted = tuple[Hint, str]


class Listeners:
    def __init__(self) -> None:
        self._listeners: list[HintListener] = []

    def listen(self, listener: HintListener) -> Callable[[], None]:
        """Returns what ends it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def call(self, hint: Hint, about: str) -> None:
        for listener in tuple(self._listeners):
            try:
                listener(hint, about)
            except Exception:
                # The callers' writes are committed whatever a listener does.
                log.exception("a listener failed at %s of %s", hint, about)


def moved(run: Run) -> list[Hinted]:
    """Of a run whose log or state has moved on."""
    hints = [(Hint.EVENTS, run.id)]
    if run.state is RunState.QUEUED:
        hints.append((Hint.QUEUED, run.id))
    return hints
