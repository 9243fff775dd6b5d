"""The newest events in memory: a dispatcher reads nearly every event right after it was committed."""

from collections.abc import Sequence

from crewcast.core.event import Channel, Event

ROOM = 16 << 20  # bytes of bodies, in all
MOST_OF_A_RUN = 1024
_OVERHEAD = 500  # bytes of an event beside its body, roughly


class Tail:
    """The end of the logs of the runs that were appended to last, without gaps.

    This process alone writes the log, and adds here before it tells anybody of a commit, so a run that
    is here has everything after its first event here.
    """

    def __init__(self, room: int = ROOM) -> None:
        self._left = room
        self._logs: dict[str, list[tuple[int, Event, int]]] = {}  # channel, event, size

    def add(self, run_id: str, events: Sequence[Event]) -> None:
        if not events:
            return
        log = self._logs.pop(run_id, None)
        if log is None:
            log = []
        self._logs[run_id] = log  # now the youngest
        for event in events:
            size = len(event.body) + _OVERHEAD if event.whole is None else _size(event)
            log.append((int(event.channel), event, size))
            self._left -= size
        if len(log) > MOST_OF_A_RUN:
            self._drop(run_id, len(log) - MOST_OF_A_RUN // 2)
        while self._left < 0:
            oldest = next(iter(self._logs))
            self._drop(oldest, len(self._logs[oldest]))

    def forget(self, run_id: str) -> None:
        """For a run that was hidden."""
        if run_id in self._logs:
            self._drop(run_id, len(self._logs[run_id]))

    def _drop(self, run_id: str, count: int) -> None:
        log = self._logs[run_id]
        self._left += sum([size for _, _, size in log[:count]])
        del log[:count]
        if not log:
            del self._logs[run_id]

    def last(self, run_id: str) -> int:
        """The number of the run's newest event here; 0 for none."""
        log = self._logs.get(run_id)
        return log[-1][1].seq if log else 0

    def after(self, run_id: str, seq: int, limit: int, channels: Channel) -> list[Event] | None:
        """Events of `channels` with `seq` above, in order, at most `limit`; None if the file has to be asked."""
        log = self._logs.get(run_id)
        if log is None:
            return None
        start = seq + 1 - log[0][1].seq
        if start < 0:
            return None
        wanted = int(channels)
        found: list[Event] = []
        for at in range(start, len(log)):
            if len(found) >= limit:
                break
            channel, event, _ = log[at]
            if channel & wanted:
                found.append(event)
        return found


def _size(event: Event) -> int:
    return len(event.body) + len(event.whole or b"") + _OVERHEAD
