"""What the rest of Crewcast asks of a store: domain verbs, each one transaction with one promise.

When a verb returns, what it wrote survives `kill -9` and a power cut. When it raises `StoreError`,
nothing of it was written. Times are microseconds UTC and come from the caller.

`append` and `settle` are queued by the call itself, also before they are awaited (`asyncio.ensure_future`
keeps them): those of one caller are committed in the order of the calls.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Protocol

from msgspec import Struct

from crewcast.core.backoff import DAY
from crewcast.core.errors import StoreAway, StoreError, StoreFull
from crewcast.core.event import Channel, Event
from crewcast.core.generation import Rotation
from crewcast.core.lane import Attempt, Lane
from crewcast.core.origin import Health
from crewcast.core.review import Review
from crewcast.core.run import Run
from crewcast.store.nodes import NodeStore
from crewcast.store.reviews import ReviewStore

NO_ENTRIES: Mapping[str, bytes | None] = MappingProxyType({})
NO_LIMITS: Mapping[str, int] = MappingProxyType({})
KEYS_KEPT_FOR = 1 * DAY


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

    `split` is the lane of its own on which an event that is to be tried again leaves a lane that is not
    ordered, as `core.lane.split` made it; `lane` is then the rest. The store gives it the run's next number.
    Outcomes are settled in the order of the events in such a lane too, whatever order they came in: all
    before its cursor is decided.
    """

    lane: Lane
    attempt: Attempt
    release: bool = False
    split: Lane | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that a lane gave up on. What a split lane gives up belongs to the lane that it left.

    `lane_seq` is the event's number in the lane, `type` what `crewcast-event` says. `redelivered`: a replay
    of it was accepted since. `number` grows over the whole store, in the order of giving up. `url` may hold
    secrets in its query.
    """

    run_id: str
    lane: int
    seq: int
    at: int
    reason: str
    url: str
    origin: str
    type: str
    lane_seq: int
    redelivered: bool
    number: int


class DeadLane(Struct, frozen=True):
    """A lane with `count` dead letters that no replay has delivered. `place` is for the next page."""

    run_id: str
    lane: int
    count: int
    place: tuple[str, int, int]


class OriginRow(Struct, frozen=True):
    """An origin that is not well, or has work: how many open lanes have events waiting, and how many."""

    health: Health
    lanes: int
    events: int


class Removal(StrEnum):
    """What came of `delete_run`."""

    HIDDEN = "hidden"
    UNKNOWN = "unknown"
    RUNNING = "running"  # refused: a running run is stopped first


class Hint(StrEnum):
    """Something was committed that somebody may wait for. Hints may be lost: everybody polls too."""

    QUEUED = "queued"  # a run can be claimed; the run's id
    EVENTS = "events"  # a run's log, state or lanes moved on; the run's id
    ORIGIN = "origin"  # an origin's health was reset; the origin
    ROTATED = "rotated"  # new secrets began; their origin, or EVERY_ORIGIN
    STOP = "stop"  # a running run was asked to stop; the run's id


def level(error: StoreError) -> int:
    """At which it is logged by who waits it out.

    A full disk meets everybody at once, again and again: the store says once that it began and once that it ended.
    """
    return logging.DEBUG if isinstance(error, StoreAway | StoreFull) else logging.ERROR


HintListener = Callable[[Hint, str], None]


class Store(ReviewStore, NodeStore, Protocol):
    """One contract suite (`tests/contract/store`) proves every adapter."""

    def listen(self, listener: HintListener) -> Callable[[], None]:
        """Calls `listener(hint, about)` in the event loop after each commit that somebody may wait for.

        Returns what ends it.
        """

    async def close(self) -> None:
        """Writes what is queued, then lets go. Later calls raise StoreError."""

    # --- runs -------------------------------------------------------------------------------

    async def create_run(
        self,
        run: Run,
        lanes: Sequence[Lane],
        key: IdempotencyKey | None,
        now: int,
        journal: Mapping[str, bytes | None] = NO_ENTRIES,
    ) -> Created:
        """Stores a queued run with its lanes and its first `journal`, and the key with it; all or nothing.

        A key that was used within the last 24 h (by `now`) gives the earlier run's id and stores nothing,
        also when that run was deleted since. Raises StoreError for an id that is known or was hidden and
        not yet swept.
        """

    async def earlier(self, key: IdempotencyKey, now: int) -> Created | None:
        """What `create_run` would answer for a key that was used within the last 24 h; None if it was not."""

    async def run(self, run_id: str) -> Run | None:
        """The run, or None. Any text may be asked for."""

    async def claim_runs(
        self,
        crews: Sequence[str],
        limit: int,
        lease_token: str,
        now: int,
        lease: int,
        *,
        per_crew: Mapping[str, int] = NO_LIMITS,
        per_token: int | None = None,
    ) -> list[Run]:
        """Leases at most `limit` queued runs of `crews`, those of higher priority first, then the oldest, and
        returns them running, in that order.

        Of a crew that `per_crew` names at most so many are taken in this call. With `per_token`, of one API token
        no more than so many runs are running in the whole store then. What a limit holds back costs little,
        however much waits. No other claim returns the runs while the lease holds. See `core.run.claim`.
        """

    def append(
        self,
        run: Run,
        events: Sequence[Event],
        lease_token: str,
        journal: Mapping[str, bytes | None] = NO_ENTRIES,
        review: Review | None = None,
    ) -> asyncio.Future[bool]:
        """Adds `events` to the log, `run`'s new fields to its row, work to the lanes, and `journal` to the run's
        journal (None removes an entry): one transaction.

        `run.seq` is the number of the last event after the append. False, and nothing is written, if
        the run is not running under `lease_token` any more or its log has moved on. `events` may be
        empty (progress only). A lane whose channels include an event's gets its `tail` moved and
        becomes due; a lane that is `fixed` does not. `lease_token`, `attempt`, `crew`, `inputs`, `stop` and the like are not changed,
        except that the lease of a run that leaves `running` is cleared, and `worked` is then as `run` says.

        `review` is what the run asks, pending from then on: one that moves to `waiting` with this append, or one
        whose process waits in place and stays `running`. What was asked in place is void once the run leaves
        `running`. Raises ValueError for a review of another run, or not pending, or with another move, and
        StoreError for a second one while one is pending.
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

    async def dead_letters(self, run_id: str) -> list[DeadLetter]:
        """The run's, in the order of the log, redelivered ones too."""

    # --- lanes ------------------------------------------------------------------------------

    async def claim_lanes(
        self,
        limit: int,
        lease_token: str,
        now: int,
        lease: int,
        busy: Sequence[str] = (),
        per_origin: int | None = None,
    ) -> list[Lane]:
        """Leases at most `limit` lanes that are due, have work, are open and not leased, longest due first.

        Lanes of the origins in `busy` are left out, and of each other origin at most `per_origin` are taken
        in this call: both cost little, however many such lanes wait. It may return fewer than there are;
        `next_due` then lies in the past. An origin that takes nothing for now belongs in `busy`.
        """

    async def lane_events(self, lane: Lane, limit: int) -> list[tuple[int, Event]]:
        """What the lane sends next: its events after `lane.cursor` in order, each with its `crewcast-lane-seq`.

        The first comes after `lane.settled` others. A replay tells the numbers that its events have in the
        lane that it replays.
        """

    async def renew_lanes(self, lease_token: str, until: int) -> None:
        """Prolongs every lane that is held by `lease_token`."""

    def settle(self, settlement: Settlement) -> asyncio.Future[bool]:
        """Writes an attempt, the lane's new state and, by the verdict, dead letters: one transaction.

        False, and nothing is written, if the lane is not held by `settlement.lane.lease_token` any more.
        The stored `tail` and `total` are kept (they may have moved meanwhile), and of a lane that stays held and has
        nothing to retry, `due_at` may be: it says nothing while somebody holds the lane. GAVE_UP records a dead letter for the
        attempt's seq, CLOSED one for it and for every later event of the lane, now and to come
        (`append` adds them while a lane is closed); of a split lane, that is its one event. With `release` the lease is cleared and
        the lane is due at `lane.due_at`; if that is None or the verdict moved the cursor: now if there is
        work left, else not at all. With `split` that lane is created, due as it says, with the run's next
        number. An event that a replay had accepted is `redelivered` from now on, in the lane that is
        replayed and in its other replays.
        """

    async def release_lane(self, lane: Lane, now: int) -> None:
        """Gives back an idle or stopped lane; it stays due if there is work. Not held any more: no change."""

    async def park_lanes(self, lanes: Sequence[Lane], due_at: int) -> None:
        """Gives back lanes as `release_lane`, those with work due at `due_at`. Not held any more: no change."""

    async def next_due(self, busy: Sequence[str] = ()) -> int | None:
        """When the next unleased open lane with work is due (may lie in the past), or None.

        Lanes of the origins in `busy` are left out.
        """

    async def pending_beside(self, lane: Lane) -> int:
        """How many events wait in the run's other open lanes at the same origin, replays not counted."""

    # --- redelivery -------------------------------------------------------------------------

    async def redeliver(
        self,
        run_id: str,
        *,
        now: int,
        lane: int | None = None,
        seq: int | None = None,
        dead_only: bool = False,
        since: int = 0,
        target: tuple[str, str] | None = None,
        auth: bytes | None = None,
    ) -> list[Lane]:
        """Creates lanes that send again, due now, and returns them; none for a run that is unknown.

        They cover the log up to now: of one lane or, with None, of each that is neither a replay nor split;
        one event or, with None, all; with `dead_only` of these those that are dead letters, given up at
        `since` or later, and not yet redelivered. Without `dead_only`, `since` says nothing. A lane with nothing to send is not created. Each is a lane of its own with the run's
        next number, ordered as the one it replays; a live lane is not touched.

        `target` is another URL and its origin. Without it, and without `auth`, the lane's own URL is sent
        its own authentication; a `target` is sent `auth` and never the old one.
        """

    async def undelivered(
        self,
        origin: str | None = None,
        run_id: str | None = None,
        since: int = 0,
        after: int = 0,
        limit: int = 100,
    ) -> list[DeadLetter]:
        """Dead letters that no replay has delivered, given up at `since` or later, in the order of giving up.

        A page: at most `limit` with `number > after`.
        """

    async def dead_lanes(
        self, origin: str | None, since: int, after: tuple[str, int, int] | None, limit: int
    ) -> list[DeadLane]:
        """Where `redeliver` with `dead_only` finds something: lanes with dead letters as `undelivered` has them.

        By origin, run and lane. `after` is the `place` of the last one of the page before. Replays are not
        replayed, so theirs are not listed.
        """

    # --- origins ----------------------------------------------------------------------------

    async def save_origin(self, health: Health) -> None:
        """Keeps what is known of an origin; forgets one that is well."""

    async def health(self) -> list[Health]:
        """What was saved: for a dispatcher that starts."""

    async def origins(self) -> list[OriginRow]:
        """Every origin that was saved or has open lanes with work, by name. Counts all waiting lanes."""

    async def reset_origin(self, origin: str, now: int, limit: int = 1000) -> int:
        """Forgets what was saved of the origin, and makes at most `limit` of its waiting lanes due now.

        How many became due: called again until it says 0. Lanes that are due already stay in their order.
        """

    # --- retention --------------------------------------------------------------------------

    async def expire(self, before: int, limit: int) -> list[str]:
        """Hides at most `limit` runs that ended before `before` and have nothing left to deliver; their ids.

        The oldest end first. Work in any open lane, live, split or replay, keeps a run.
        """

    async def delete_run(self, run_id: str) -> Removal:
        """Hides a run that is not running, whatever waits in its lanes; whoever holds one settles nothing more.

        From then on it is unknown to every verb that reads, and no claim, append or settlement finds it.
        """

    async def sweep(self, limit: int) -> int:
        """Removes at most `limit` rows of hidden runs, and says how many; 0 when nothing is left.

        A hidden run's row goes last, so a crash in between leaves it to be gone on with.
        """

    # --- rotation ---------------------------------------------------------------------------

    async def rotations(self) -> list[Rotation]:
        """Every rotation so far, the oldest first."""

    async def rotate(self, origin: str, now: int, until: int) -> Rotation | None:
        """Begins the next generation of an origin's secrets, or of all with `EVERY_ORIGIN`.

        None, and nothing is written, if too many would be in force at once. See `core.generation.Rotations.next`.
        """

    async def key_fingerprint(self) -> bytes | None:
        """Which master key this store's secrets derive from, if that is noted."""

    async def bind_key(self, fingerprint: bytes, *, replace: bool = False) -> bytes:
        """Notes which master key this store's secrets derive from, if none is noted or with `replace`.

        The fingerprint that is noted afterwards.
        """

    # --- node -------------------------------------------------------------------------------

    async def void_leases(self, now: int) -> None:
        """For an embedded node that starts: it holds the data folder alone, so every lane lease it finds is void.

        Lanes with work become due now, or stay due later if they were (a retry).
        """
