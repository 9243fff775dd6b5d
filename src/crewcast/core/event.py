"""An event: an immutable record of a run."""

from enum import IntFlag

from msgspec import Struct

from crewcast.core import ids


class Channel(IntFlag):
    """What kind of event it is for a subscriber. The numbers are stored: never reuse one."""

    TASK = 1
    STEP = 2
    CREW = 4
    HUMAN_INPUT = 8
    STREAM = 16

    @property
    def label(self) -> str:
        return (self.name or "").lower()


class Event(Struct, frozen=True, gc=False):
    """One event of a run's log.

    `seq` is dense per run, 1..n. `type` is what `crewcast-event` says: `step`, `task.completed`,
    `crew.error`. `body` is exactly what is signed and sent. `whole` is the uncut body when `body`
    had to be cut to `max_event_bytes`. `run_attempt` counts the tries of the run, from 1.
    """

    run_id: str
    seq: int
    channel: Channel
    type: str
    body: bytes
    at: int
    run_attempt: int = 1
    task_id: str | None = None
    whole: bytes | None = None

    @property
    def id(self) -> str:
        return ids.event_id(self.run_id, self.seq)
