"""A claimed lane at work: one event in flight, the next as soon as the last was accepted."""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import lru_cache

from crewcast.clock import Clock
from crewcast.contract import webhooks
from crewcast.core import url
from crewcast.core.backoff import SECOND, RetryPolicy
from crewcast.core.errors import CrewcastError, StoreError
from crewcast.core.event import Channel, Event
from crewcast.core.lane import Attempt, Lane, Verdict, settle, split
from crewcast.core.origin import Breaker, held_until
from crewcast.core.outcome import Outcome
from crewcast.dispatch.leases import Leases
from crewcast.dispatch.origins import Origin
from crewcast.dispatch.transport import Transport
from crewcast.store.protocol import Settlement, Store, level

log = logging.getLogger("crewcast.dispatch")

POLL_EVERY = 1 * SECOND
READ_AHEAD = 64  # events of a lane read at once
UNSETTLED = 32  # accepted outcomes of a lane whose commit may still be on its way
STOPPED = "stopped"  # the outcome of an attempt that the sender's own end cut short
PARK_JITTER = 1 * SECOND  # lanes of an origin that works again do not all come at once
CREW_POLL = 5 * SECOND  # a crew event that waits for its siblings and had to give up its place

Authentication = Callable[[Lane], list[tuple[bytes, bytes]]]
Sent = tuple[Outcome, int]  # and when


class End(Enum):
    """How a lane leaves: still held by us, or settled away, or lost to another."""

    GIVE_BACK = auto()
    GONE = auto()


@dataclass(slots=True)
class Shared:
    """What all lanes of a dispatcher share. `resting` has those that wait for work, the longest first."""

    store: Store
    transport: Transport
    clock: Clock
    roll: Callable[[], float]
    policy: RetryPolicy
    crew_wait: int
    open_auth: Authentication
    nudge_siblings: Callable[["LaneWork"], None]
    leases: Leases
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    resting: dict["LaneWork", int] = field(default_factory=dict)


_target = lru_cache(4096)(url.parse)  # a URL has many lanes


class LaneWork:
    """`run()` ends when the lane is given back or lost.

    A lane rests when there is nothing to send, for the run's next event. It is `dismissed` after a while,
    or when there are too many.
    """

    def __init__(self, shared: Shared, lane: Lane, origin: Origin) -> None:
        self.lane = lane
        self.origin = origin
        self.wake = asyncio.Event()
        self.heard = True  # there may be events that were not read yet
        self.awaits_siblings = False
        self.dismissed = False
        self._shared = shared
        self._clock = shared.clock
        self._key = (lane.run_id, lane.number)
        self._target = _target(lane.url)
        self._auth: list[tuple[bytes, bytes]] | None = [] if lane.auth is None else None
        self._in_flight = 0  # beside the event that is recorded
        self._parked: int | None = None  # due then, when it is given back
        self._ahead: deque[tuple[int, Event]] = deque()
        self._unsettled: deque[asyncio.Future[bool]] = deque()
        origin.held += 1
        origin.begins()

    def hear(self) -> None:
        """The run's log has moved on."""
        self.heard = True
        self.wake.set()

    def dismiss(self) -> None:
        self.dismissed = True
        self.wake.set()

    async def run(self) -> None:
        try:
            end = await self._work()
            if await self._settled(0) and end is End.GIVE_BACK:
                await self._give_back()
        except StoreError as e:
            log.log(level(e), "lane %d of run %s: %s", self.lane.number, self.lane.run_id, e)
            await self._start_over()
        except Exception:
            log.exception("lane %d of run %s", self.lane.number, self.lane.run_id)
            await self._start_over()
        finally:
            self.origin.ceases()
            self.origin.held -= 1

    async def _give_back(self) -> None:
        if self._parked is None:
            await self._shared.store.release_lane(self.lane, self._clock.now())
        else:
            await self._shared.store.park_lanes([self.lane], self._parked)

    async def _start_over(self) -> None:
        """Gives the lane back as the store knows it: what was sent and not settled is sent again."""
        for writing in self._unsettled:
            writing.add_done_callback(lambda done: done.cancelled() or done.exception())  # told already
        while not self._shared.stop.is_set():
            await self._clock.wait(self._shared.stop, POLL_EVERY)
            with contextlib.suppress(StoreError):
                await self._shared.store.release_lane(self.lane, self._clock.now())
                return

    async def _work(self) -> End:
        """Sends until there is nothing to send, or nothing may be sent."""
        while not self._shared.stop.is_set():
            self.wake.clear()
            if not self._ahead and self.heard:
                await self._read(self.lane)
            end = await self._advance() if self._ahead else await self._rest()
            if end is not None:
                return end
        return End.GIVE_BACK

    async def _read(self, place: Lane) -> None:
        """The next events of the lane as it stands at `place`. What is not heard of needs no look."""
        self.heard = False
        found = await self._shared.store.lane_events(place, READ_AHEAD)
        self.heard = self.heard or len(found) == READ_AHEAD
        self._ahead.extend(found)

    async def _advance(self) -> End | None:
        """One attempt for the head."""
        lane_seq, head = self._ahead[0]
        pending = None
        if head.channel is Channel.CREW:
            pending = await self._beside(head)
            if pending is None:
                return None if self._parked is None else End.GIVE_BACK
        sent = await self._send(lane_seq, head, pending)
        if sent is None:
            return End.GIVE_BACK
        self._ahead.popleft()
        if not self._record(head, *sent):
            return End.GONE
        if len(self._unsettled) > UNSETTLED and not await self._settled(UNSETTLED):
            return End.GONE
        return None

    async def _rest(self) -> End | None:
        """Waits for more events."""
        if not await self._settled(0):
            return End.GONE
        self._shared.nudge_siblings(self)
        if self.dismissed:
            return End.GIVE_BACK
        await self._pause(None)
        return None if self.origin.has_room else End.GIVE_BACK

    async def _pause(self, at_most: int | None) -> None:
        """Waits for `wake` without being counted among those at work."""
        self.origin.ceases()
        self._shared.resting[self] = self._clock.now()
        try:
            await self._clock.wait(self.wake, at_most)
        finally:
            del self._shared.resting[self]
            self.origin.begins()

    async def _beside(self, head: Event) -> int | None:
        """How much still waits in the run's other lanes at the origin of this crew event.

        None after a pause: the result waits for its steps, but at most `crew_wait`. A replay waits for nobody,
        nor does a lane whose order kickoff lifted, or the lane of its own on which an event left that one.
        """
        pending = await self._shared.store.pending_beside(self.lane)
        now = self._clock.now()
        until = head.at + self._shared.crew_wait
        if pending == 0 or until <= now or self.lane.fixed or not self.lane.ordered:
            return pending
        self.awaits_siblings = True
        await self._pause(min(until - now, POLL_EVERY))
        self.awaits_siblings = False
        now = self._clock.now()
        if self.dismissed or (until <= now and not self.origin.has_room):
            self._parked = max(now, min(until, now + CREW_POLL))
        return None

    async def _send(self, lane_seq: int, head: Event, pending: int | None) -> Sent | None:
        """The outcome of an attempt, and when it began; None if none was made: the lane is to be given back."""
        origin, stop = self.origin, self._shared.stop
        if origin.ailing and (until := held_until(origin.health, self._clock.now())) is not None:
            self._park(until)
            return None
        if origin.rate is not None:
            at = origin.turn(self._clock.now())
            while not stop.is_set() and (left := at - self._clock.now()) > 0:
                await self._clock.wait(stop, left)
        if not origin.take():
            await origin.wait()
        try:
            if stop.is_set() or self._shared.leases.lapsed(self.lane.lease_token):
                return None
            at = self._clock.now()
            if origin.ailing and (until := origin.ask(self._key, at)) is not None:
                self._park(until)
                return None
            if self._auth is None and (sealed := self._open()) is not None:
                return sealed, at
            headers = self._headers(lane_seq, head, pending, at)
            outcome = await self._shared.transport.post(self._target, headers, head.body)
        finally:
            origin.give()
        if outcome.kind == STOPPED:
            return None  # our doing, not the subscriber's: no attempt
        if origin.watched or not outcome.accepted:
            origin.told(outcome, self._key, self._clock.now())
        return outcome, at

    def _park(self, until: int) -> None:
        """The origin takes nothing before `until`: the lane is not kept.

        While a probe is on its way nobody knows until when; until it is back, no lane of the origin is claimed.
        """
        if self.origin.health.state is Breaker.HALF_OPEN:
            until = self._clock.now()
        self._parked = until + int(self._shared.roll() * PARK_JITTER)

    def _open(self) -> Outcome | None:
        """Opens the lane's authentication; an outcome if that cannot be, since nothing is sent without it."""
        try:
            self._auth = self._shared.open_auth(self.lane)
        except CrewcastError as e:
            return Outcome("sealed", detail=str(e))
        return None

    def _headers(self, lane_seq: int, head: Event, pending: int | None, at: int) -> list[tuple[bytes, bytes]]:
        timestamp = at // SECOND
        headers = webhooks.headers(
            head,
            self.lane,
            timestamp=timestamp,
            signatures=self.origin.signer.sign(head.id, timestamp, head.body),
            lane_seq=lane_seq,
            pending=pending,
            replay=self.lane.replay_of is not None,
        )
        return headers + self._auth if self._auth else headers

    def _record(self, head: Event, outcome: Outcome, at: int) -> bool:
        """Settles the attempt; False when the lane is given back with it.

        Writes of one lane are committed in the order they are made; an accepted one is not waited for. Of a
        lane that is not ordered, an event that failed goes on a lane of its own.
        """
        before, apart = self.lane, None
        now, roll = self._clock.now(), self._shared.roll()
        after, verdict = settle(before, head, outcome, self._shared.policy, now, roll)
        attempt = Attempt(before.run_id, before.number, head.seq, before.tries + 1, at, outcome, verdict)
        if verdict is Verdict.RETRY and not before.ordered:
            after, apart = split(before, head, after)
        moved = verdict is Verdict.ACCEPTED or apart is not None
        release = (
            (moved and self._is_last(head, after))
            or verdict is Verdict.CLOSED
            or (verdict is Verdict.RETRY and apart is None)
        )
        if verdict is not Verdict.ACCEPTED:
            # A subscriber that is away for a day is said once for each event, not at every attempt.
            level = logging.DEBUG if verdict is Verdict.RETRY and before.tries else logging.WARNING
            log.log(level, "event %s to %s: %s, %s", head.id, before.origin, outcome.kind, _SAID[verdict])
        self.lane = after
        self._unsettled.append(self._shared.store.settle(Settlement(after, attempt, release, apart)))
        return not release

    def _is_last(self, head: Event, after: Lane) -> bool:
        """The lane is not worth keeping for more: after the crew event, a run's last, after the last of a replay,
        if it is held by a former token, or if others wait for its place.
        """
        if head.channel is Channel.CREW or (after.fixed and after.cursor >= after.tail):
            return True
        if after.lease_token != self._shared.leases.token and not self._in_flight:
            return True
        return self.origin.passed_over and not self.heard and not self._ahead and not self._in_flight

    async def _settled(self, most: int) -> bool:
        """Waits until at most `most` writes are on their way; False if one found the lease lost."""
        held = True
        while self._unsettled and (len(self._unsettled) > most or self._unsettled[0].done()):
            held = await self._unsettled.popleft() and held
        return held


_SAID = {
    Verdict.ACCEPTED: "accepted",
    Verdict.RETRY: "will be tried again",
    Verdict.GAVE_UP: "given up: a dead letter",
    Verdict.CLOSED: "the lane is closed: its rest are dead letters",
}
