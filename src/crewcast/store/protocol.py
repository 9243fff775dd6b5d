"""What the rest of Crewcast asks of a store: domain verbs, each one transaction with one promise.

When a verb returns, what it wrote survives `kill -9` and a power cut. When it raises `StoreError`,
nothing of it was written. Times are microseconds UTC and come from the caller.

`append` and `settle` are queued by the call itself, also before they are awaited (`asyncio.ensure_future`
keeps them): those of one caller are committed in the order of the calls.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from msgspec import Struct

from crewcast.core.event import Channel, Event
from crewcast.core.lane import Attempt, Lane
from crewcast.core.run import Run


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A client's `Idempotency-Key`, valid per `token`; `fingerprint` is the SHA-256 of the body."""

    token: str
    key: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class Created:
    """`run_id` is the new run's, or with `replayed` the one that the same key started before.

    With `conflict` the key was used for another body: nothing was created.
    """

    run_id: str
    replayed: bool = False
    conflict: bool = False


class Settlement(Struct, frozen=True, gc=False):
    """What an attempt changes: the lane as `core.lane.settle` returned it, and the attempt itself.

    `release` gives the lane back: at a retry, when it is done, or when the dispatcher stops.
    """

    lane: Lane
    attempt: Attempt
    release: bool = False


@dataclass(frozen=True, slots=True)
class DeadLetter:
    run_id: str
    lane: int
    seq: int
    at: int
    reason: str


class Hint(StrEnum):
    """Something was committed that somebody may wait for. Hints may be lost: everybody polls too."""

    QUEUED = "queued"  # a run can be claimed; the run's id
    EVENTS = "events"  # a run's log or state moved on; the run's id


HintListener = Callable[[Hint, str], None]


class Store(Protocol):
    """One contract suite (`tests/contract/store`) proves every adapter."""

    def listen(self, listener: HintListener) -> Callable[[], None]:
        """Calls `listener(hint, run_id)` in the event loop after each commit that moved a run on.

        Returns what ends it.
        """

    async def close(self) -> None:
        """Writes what is queued, then lets go. Later calls raise StoreError."""

    # --- runs -------------------------------------------------------------------------------

    async def create_run(
        self, run: Run, lanes: Sequence[Lane], key: IdempotencyKey | None, now: int
    ) -> Created:
        """Stores a queued run with its lanes, and the key with it; all or nothing.

        A key that was used within the last 24 h (by `now`) gives the earlier run's id and stores nothing.
        """

    async def earlier(self, key: IdempotencyKey, now: int) -> Created | None:
        """What `create_run` would answer for a key that was used within the last 24 h; None if it was not."""

    async def run(self, run_id: str) -> Run | None:
        """The run, or None. Any text may be asked for."""

    async def claim_runs(
        self, crews: Sequence[str], limit: int, lease_token: str, now: int, lease: int
    ) -> list[Run]:
        """Leases at most `limit` queued runs of `crews`, the oldest first, and returns them running.

        No other claim returns them while the lease holds. See `core.run.claim`.
        """

    async def renew_runs(self, lease_token: str, until: int) -> None:
        """Prolongs every running run that is held by `lease_token`."""

    def append(self, run: Run, events: Sequence[Event], lease_token: str) -> asyncio.Future[bool]:
        """Adds `events` to the log, `run`'s new fields to its row, and work to the lanes: one transaction.

        `run.seq` is the number of the last event after the append. False, and nothing is written, if
        the run is not running under `lease_token` any more or its log has moved on. `events` may be
        empty (progress only). A lane whose channels include an event's gets its `tail` moved and
        becomes due. `lease_token`, `attempt`, `crew`, `inputs` and the like are not changed, except that
        an ended run's lease is cleared.
        """

    async def running_runs(self) -> list[Run]:
        """All runs in state `running`: for an embedded node that starts, what the last one left behind."""

    async def adopt(self, run: Run, lease_token: str, until: int) -> bool:
        """Takes a running run from whoever held it (`run.lease_token`), so that it can be ended.

        False if it moved on meanwhile.
        """

    async def events(
        self,
        run_id: str,
        after: int = 0,
        limit: int = 100,
        channels: Channel | None = None,
    ) -> list[Event]:
        """Events with `seq > after`, in order, at most `limit`, of `channels` if given."""

    async def last_event(self, run_id: str, channel: Channel) -> Event | None:
        """The newest event of a channel: a run's crew event is its result."""

    async def lanes(self, run_id: str) -> list[Lane]: ...

    async def attempts(self, run_id: str, after: int = 0, limit: int = 1000) -> list[tuple[int, Attempt]]:
        """The run's attempts in the order made, each with its growing number (for `after`)."""

    async def dead_letters(self, run_id: str) -> list[DeadLetter]: ...

    # --- lanes ------------------------------------------------------------------------------

    async def claim_lanes(self, limit: int, lease_token: str, now: int, lease: int) -> list[Lane]:
        """Leases at most `limit` lanes that are due, have work, are open and not leased, longest due first."""

    async def renew_lanes(self, lease_token: str, until: int) -> None:
        """Prolongs every lane that is held by `lease_token`."""

    def settle(self, settlement: Settlement) -> asyncio.Future[bool]:
        """Writes an attempt, the lane's new state and, by the verdict, dead letters: one transaction.

        False, and nothing is written, if the lane is not held by `settlement.lane.lease_token` any more.
        The stored `tail` is kept (it may have moved meanwhile). GAVE_UP records a dead letter for the
        attempt's seq, CLOSED one for it and for every later event of the lane, now and to come
        (`append` adds them while a lane is closed). With `release` the lease is cleared and
        the lane is due at `lane.due_at`; if that is None or the verdict moved the cursor: now if there is
        work left, else not at all.
        """

    async def release_lane(self, lane: Lane, now: int) -> None:
        """Gives back an idle or stopped lane; it stays due if there is work. Not held any more: no change."""

    async def next_due(self) -> int | None:
        """When the next unleased open lane with work is due (may lie in the past), or None."""

    async def pending_beside(self, lane: Lane) -> int:
        """How many events wait in the run's other open lanes at the same origin."""

    # --- node -------------------------------------------------------------------------------

    async def void_leases(self, now: int) -> None:
        """For an embedded node that starts: it holds the data folder alone, so every lane lease it finds is void.

        Lanes with work become due now, or stay due later if they were (a retry).
        """
