"""What an append is, in values of the log's rows."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from crewcast.core.event import Event
from crewcast.core.review import Review
from crewcast.core.run import Run
from crewcast.store.protocol import NO_ENTRIES
from crewcast.store.session import Values
from crewcast.store.verbs.journal import Entries


class Append(NamedTuple):
    run: Run
    events: Sequence[Event]
    lease_token: str
    journal: Entries = NO_ENTRIES
    review: Review | None = None


def check_dense(run: Run, events: Sequence[Event], before: int) -> None:
    """Raises ValueError for events that do not follow number `before`."""
    for number, event in enumerate(events, before + 1):
        if event.seq != number or event.run_id != run.id:
            raise ValueError(f"run {run.id}: event {event.id} cannot be number {number} of its log")


def work_of(logged: Iterable[Values]) -> list[Values]:
    """Of rows of `rows.event_row` the newest of each run and channel: key, channel, seq, at, and how many there are.

    Oldest first: a lane takes the last that it listens to.
    """
    newest: dict[tuple[int, int], Values] = {}
    for key, seq, channel, _, at, *_ in logged:
        earlier = newest.pop((key, channel), None)
        newest[key, channel] = (key, channel, seq, at, 1 if earlier is None else earlier[4] + 1)
    return list(newest.values())
