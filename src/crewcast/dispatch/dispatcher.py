"""The dispatcher: takes lanes that are due and sends their events, each lane in its order."""

import asyncio
import contextlib
import logging
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from crewcast.clock import Clock
from crewcast.contract import webhooks
from crewcast.core import url
from crewcast.core.backoff import SECOND, RetryPolicy
from crewcast.core.errors import StoreError
from crewcast.core.event import Channel, Event
from crewcast.core.keyring import KeyRing, OriginSigner
from crewcast.core.lane import Attempt, Lane, Verdict, settle
from crewcast.core.outcome import Outcome
from crewcast.dispatch.transport import Transport
from crewcast.store.protocol import Hint, Settlement, Store

log = logging.getLogger("crewcast.dispatch")

LEASE = 60 * SECOND
RENEW_EVERY = 15 * SECOND
POLL_EVERY = 1 * SECOND
READ_AHEAD = 64  # events of a lane read at once
UNSETTLED = 32  # accepted outcomes of a lane whose commit may still be on its way
STOPPED = "stopped"  # the outcome of an attempt that the sender's own end cut short
LINGER = 2 * SECOND  # an idle lane is kept at least this long for the run's next event


@dataclass(frozen=True, slots=True)
class DispatchLimits:
    """`lanes` worked on at once, `per_origin` requests in flight; `crew_wait` in microseconds."""

    lanes: int = 512
    per_origin: int = 64
    crew_wait: int = 60 * SECOND


class Dispatcher:
    """One per node. `run()` until cancelled; `stop()` first, so that what is in flight ends and is recorded."""

    def __init__(
        self,
        store: Store,
        transport: Transport,
        keys: KeyRing,
        clock: Clock,
        roll: Callable[[], float],
        *,
        policy: RetryPolicy = RetryPolicy(),  # noqa: B008 - a frozen value
        limits: DispatchLimits = DispatchLimits(),
    ) -> None:
        self._store = store
        self._transport = transport
        self._keys = keys
        self._clock = clock
        self._roll = roll
        self._policy = policy
        self._limits = limits
        self._lease_token = secrets.token_hex(16)
        self._wake = asyncio.Event()
        self._stopping = False
        self._stopped = asyncio.Event()
        self._active: dict[tuple[str, int], _LaneWork] = {}
        self._by_run: dict[str, set[_LaneWork]] = {}
        self._origins: dict[str, _Origin] = {}
        store.listen(self._on_hint)

    async def run(self) -> None:
        """Claims and sends until cancelled. An error of the store is waited out, never fatal."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._renew())
            group.create_task(self._dismiss())
            while not self._stopping:
                pause = POLL_EVERY
                try:
                    pause = await self._claim(group)
                except StoreError as e:
                    log.error("lanes cannot be claimed: %s", e)
                await self._clock.wait(self._wake, pause)
                self._wake.clear()
            if not self._active:
                self._stopped.set()
            await asyncio.Event().wait()

    async def stop(self, patience: int) -> None:
        """Starts no more attempts; waits at most `patience` microseconds for those in flight."""
        self._stopping = True
        self._wake.set()
        for work in self._active.values():
            work.wake.set()
        if self._active:
            await self._clock.wait(self._stopped, patience)

    def nudge_siblings(self, work: "_LaneWork") -> None:
        """Wakes the crew event that may wait until `work` and the run's other lanes have nothing left."""
        for other in self._by_run.get(work.lane.run_id, ()):
            if other.awaits_siblings:
                other.wake.set()

    def _on_hint(self, hint: Hint, run_id: str) -> None:
        if hint is Hint.EVENTS:
            for work in self._by_run.get(run_id, ()):
                work.wake.set()
            self._wake.set()

    async def _renew(self) -> None:
        never = asyncio.Event()
        while True:
            await self._clock.wait(never, RENEW_EVERY)
            if self._active:
                try:
                    await self._store.renew_lanes(self._lease_token, self._clock.now() + LEASE)
                except StoreError as e:
                    log.error("lane leases cannot be renewed: %s", e)

    async def _dismiss(self) -> None:
        """Sends idle lanes home: one timer for all, since a lane waits after most of its events."""
        never = asyncio.Event()
        while True:
            await self._clock.wait(never, LINGER)
            long_ago = self._clock.now() - LINGER
            for work in self._active.values():
                if work.idle_since is not None and work.idle_since <= long_ago:
                    work.dismissed = True
                    work.wake.set()

    async def _claim(self, group: asyncio.TaskGroup) -> int:
        """Takes what is due; returns how long to wait for the next that will be."""
        free = self._limits.lanes - len(self._active)
        if free <= 0:
            return POLL_EVERY
        lanes = await self._store.claim_lanes(free, self._lease_token, self._clock.now(), LEASE)
        for lane in lanes:
            work = _LaneWork(self, lane)
            self._active[lane.run_id, lane.number] = work
            self._by_run.setdefault(lane.run_id, set()).add(work)
            task = group.create_task(work.run())
            task.add_done_callback(partial(self._finished, work))
        if len(lanes) == free:
            return 0
        due = await self._store.next_due()
        return POLL_EVERY if due is None else max(0, min(POLL_EVERY, due - self._clock.now()))

    def _finished(self, work: "_LaneWork", _task: asyncio.Task[None]) -> None:
        run_id = work.lane.run_id
        del self._active[run_id, work.lane.number]
        self.nudge_siblings(work)
        beside = self._by_run[run_id]
        beside.discard(work)
        if not beside:
            del self._by_run[run_id]
        self._wake.set()
        if self._stopping and not self._active:
            self._stopped.set()

    def _origin(self, lane: Lane) -> "_Origin":
        origin = self._origins.get(lane.origin)
        if origin is None:
            signer = self._keys.signer(lane.origin)
            origin = self._origins[lane.origin] = _Origin(signer, self._limits.per_origin)
        return origin


class _Origin:
    """What the lanes to one origin share: its signer, and its slots for requests in flight.

    Slots pass from hand to hand in the order asked for. (asyncio.Semaphore costs as much as the signature.)
    """

    def __init__(self, signer: OriginSigner, slots: int) -> None:
        self.signer = signer
        self._free = slots
        self._waiting: deque[asyncio.Future[None]] = deque()

    def take(self) -> bool:
        """A slot, if one is free."""
        if self._free == 0:
            return False
        self._free -= 1
        return True

    async def wait(self) -> None:
        """A slot, once it is this caller's turn."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give()
            raise

    def give(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class _LaneWork:
    """A claimed lane at work: one event in flight, the next as soon as the last was accepted."""

    def __init__(self, dispatcher: Dispatcher, lane: Lane) -> None:
        self.lane = lane
        self.wake = asyncio.Event()
        self._d = dispatcher
        self._store = dispatcher._store  # noqa: SLF001 - two halves of one thing
        self._clock = dispatcher._clock  # noqa: SLF001
        self._target = url.parse(lane.url)
        self._origin = dispatcher._origin(lane)  # noqa: SLF001
        self.awaits_siblings = False
        self.idle_since: int | None = None
        self.dismissed = False
        self._ahead: deque[Event] = deque()
        self._unsettled: deque[asyncio.Future[bool]] = deque()

    async def run(self) -> None:
        try:
            held = await self._work()
            held = await self._settled(0) and held
            if held:
                await self._store.release_lane(self.lane, self._clock.now())
        except StoreError as e:
            log.error("lane %d of run %s: %s", self.lane.number, self.lane.run_id, e)
            await self._start_over()
        except Exception:
            log.exception("lane %d of run %s", self.lane.number, self.lane.run_id)
            await self._start_over()

    async def _start_over(self) -> None:
        """Gives the lane back as the store knows it: what was sent and not settled is sent again."""
        for writing in self._unsettled:
            writing.add_done_callback(lambda done: done.cancelled() or done.exception())  # told already
        never = asyncio.Event()
        while not self._d._stopping:  # noqa: SLF001
            await self._clock.wait(never, POLL_EVERY)
            with contextlib.suppress(StoreError):
                await self._store.release_lane(self.lane, self._clock.now())
                return

    async def _work(self) -> bool:
        """Sends until there is nothing to send; whether the lane is still to be released."""
        while not self._d._stopping:  # noqa: SLF001
            self.wake.clear()
            head = self._ahead[0] if self._ahead else await self._read()
            if head is None:
                if not await self._settled(0):
                    return False
                self._d.nudge_siblings(self)
                if self.dismissed:
                    return True
                self.idle_since = self._clock.now()
                await self.wake.wait()
                self.idle_since = None
                continue
            pending = None
            if head.channel is Channel.CREW:
                pending = await self._beside(head)
                if pending is None:
                    continue
            outcome, at = await self._attempt(head, pending)
            if outcome.kind == STOPPED:
                return True  # our doing, not the subscriber's: no attempt
            if not self._record(head, outcome, at):
                return False
            if len(self._unsettled) > UNSETTLED and not await self._settled(UNSETTLED):
                return False
        return True

    async def _read(self) -> Event | None:
        lane = self.lane
        self._ahead.extend(await self._store.events(lane.run_id, lane.cursor, READ_AHEAD, lane.channels))
        return self._ahead[0] if self._ahead else None

    async def _beside(self, head: Event) -> int | None:
        """How much still waits in the run's other lanes at the origin of this crew event.

        None after a pause: the result waits for its steps, but at most `crew_wait`.
        """
        pending = await self._store.pending_beside(self.lane)
        left = head.at + self._d._limits.crew_wait - self._clock.now()  # noqa: SLF001
        if pending == 0 or left <= 0:
            return pending
        self.awaits_siblings = True
        await self._clock.wait(self.wake, min(left, POLL_EVERY))
        self.awaits_siblings = False
        return None

    async def _attempt(self, head: Event, pending: int | None) -> tuple[Outcome, int]:
        origin = self._origin
        if not origin.take():
            await origin.wait()
        try:
            at = self._clock.now()
            timestamp = at // SECOND
            headers = webhooks.headers(
                head,
                self.lane,
                timestamp=timestamp,
                signatures=origin.signer.sign(head.id, timestamp, head.body),
                pending=pending,
            )
            return await self._d._transport.post(self._target, headers, head.body), at  # noqa: SLF001
        finally:
            origin.give()

    def _record(self, head: Event, outcome: Outcome, at: int) -> bool:
        """Settles the attempt; False when the lane is given back with it.

        Writes of one lane are committed in the order they are made; an accepted one is not waited for.
        """
        now = self._clock.now()
        before = self.lane
        after, verdict = settle(before, head, outcome, self._d._policy, now, self._d._roll())  # noqa: SLF001
        attempt = Attempt(before.run_id, before.number, head.seq, before.tries + 1, at, outcome, verdict)
        # The crew event is a run's last: no point in keeping the lane for more.
        last = verdict is Verdict.ACCEPTED and head.channel is Channel.CREW
        release = last or verdict in (Verdict.RETRY, Verdict.CLOSED)
        if verdict is not Verdict.ACCEPTED:
            # A subscriber that is away for a day is said once for each event, not at every attempt.
            level = logging.DEBUG if verdict is Verdict.RETRY and before.tries else logging.WARNING
            log.log(level, "event %s to %s: %s, %s", head.id, before.origin, outcome.kind, _SAID[verdict])
        self.lane = after
        if verdict is not Verdict.RETRY:
            self._ahead.popleft()
        self._unsettled.append(self._store.settle(Settlement(after, attempt, release)))
        return not release

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
