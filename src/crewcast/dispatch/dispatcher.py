"""The dispatcher: takes lanes that are due and has their events sent, each lane in its order."""

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from crewcast.clock import Clock
from crewcast.core.backoff import SECOND, RetryPolicy
from crewcast.core.errors import StoreError
from crewcast.core.lane import Lane
from crewcast.core.origin import HealthPolicy
from crewcast.dispatch.lanes import POLL_EVERY, Authentication, LaneWork, Shared
from crewcast.dispatch.leases import Leases
from crewcast.dispatch.limits import DispatchLimits
from crewcast.dispatch.origins import Origins, Signer
from crewcast.dispatch.transport import Transport
from crewcast.dispatch.unordered import UnorderedWork
from crewcast.store.protocol import Hint, Store, level

__all__ = ["DispatchLimits", "Dispatcher"]

log = logging.getLogger("crewcast.dispatch")

LINGER = 2 * SECOND  # an idle lane is kept at least this long for the run's next event
NOT_AT_ONCE = SECOND // 100  # when the store says that something is due and gives nothing


def _no_authentication(_lane: Lane) -> list[tuple[bytes, bytes]]:
    return []


class Dispatcher:
    """One per node. `run()` until cancelled; `stop()` first, so that what is in flight ends and is recorded.

    `signatures` gives an origin's signer, asked once while the origin has work. `open_auth` gives the headers
    that are sealed in a lane; what it raises as CrewcastError is the outcome of the attempt. `shared`: other
    dispatchers may take lanes whose lease has lapsed.
    """

    def __init__(
        self,
        store: Store,
        transport: Transport,
        signatures: Callable[[str], Signer],
        clock: Clock,
        roll: Callable[[], float],
        *,
        policy: RetryPolicy = RetryPolicy(),  # noqa: B008 - a frozen value
        limits: DispatchLimits = DispatchLimits(),  # noqa: B008
        health: HealthPolicy = HealthPolicy(),  # noqa: B008
        open_auth: Authentication = _no_authentication,
        shared: bool = False,
    ) -> None:
        self._store = store
        self._clock = clock
        self._lanes = limits.lanes
        self._lease = limits.lease
        self._leases = Leases(clock, limits.lease, shared=shared)
        self._wake = asyncio.Event()
        self._stopped = asyncio.Event()
        self._active: dict[tuple[str, int], LaneWork] = {}
        self._by_run: dict[str, set[LaneWork]] = {}
        self._origins = Origins(store, signatures, clock, roll, limits, health, self._wake.set)
        self._shared = Shared(
            store,
            transport,
            clock,
            roll,
            policy,
            limits.crew_wait,
            open_auth,
            self._nudge_siblings,
            self._leases,
        )
        store.listen(self._on_hint)

    async def run(self) -> None:
        """Claims and sends until cancelled. An error of the store is waited out, never fatal."""
        await self._load()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._renew())
            group.create_task(self._dismiss())
            group.create_task(self._origins.keep())
            while not self._stopping:
                pause = POLL_EVERY
                try:
                    pause = await self._claim(group)
                except StoreError as e:
                    log.log(level(e), "lanes cannot be claimed: %s", e)
                    # It may have been a claim whose answer was lost. Nobody knows its lanes, so their lease must
                    # not be prolonged: those that are known are soon held by another token.
                    self._leases.change()
                await self._clock.wait(self._wake, pause)
                self._wake.clear()
            if not self._active:
                self._stopped.set()
            await asyncio.Event().wait()

    async def stop(self, patience: int) -> None:
        """Starts no more attempts; waits at most `patience` microseconds for those in flight."""
        self._shared.stop.set()
        self._wake.set()
        for work in self._active.values():
            work.wake.set()
        if self._active:
            await self._clock.wait(self._stopped, patience)

    def among(self, dispatchers: int) -> None:
        """So many dispatchers share the origins: each takes its part of the rate."""
        self._origins.share_rate(max(1, dispatchers))

    @property
    def lanes_held(self) -> int:
        """How many are in memory: at work, or kept for their runs' next events."""
        return len(self._active)

    @property
    def _stopping(self) -> bool:
        return self._shared.stop.is_set()

    def _nudge_siblings(self, work: LaneWork) -> None:
        """Wakes the crew event that may wait until `work` and the run's other lanes have nothing left."""
        for other in self._by_run.get(work.lane.run_id, ()):
            if other.awaits_siblings:
                other.wake.set()

    def _on_hint(self, hint: Hint, about: str) -> None:
        if hint is Hint.EVENTS:
            for work in self._by_run.get(about, ()):
                work.hear()
            self._wake.set()
        elif hint is Hint.ORIGIN:
            self._origins.reset(about)

    async def _load(self) -> None:
        while not self._stopping:
            try:
                await self._origins.load()
            except StoreError as e:
                log.log(level(e), "the health of origins cannot be read: %s", e)
                await self._clock.wait(self._shared.stop, POLL_EVERY)
            else:
                return

    async def _renew(self) -> None:
        never, pause = asyncio.Event(), self._lease // 4
        while True:
            await self._clock.wait(never, pause)
            pause = self._lease // 4
            self._give_up_lapsed()
            try:
                for token in self._tokens():
                    until = self._leases.next_end()
                    await self._store.renew_lanes(token, until)
                    self._leases.prolonged(token, until)
            except StoreError as e:
                log.log(level(e), "lane leases cannot be renewed: %s", e)
                pause = min(pause, POLL_EVERY)

    def _tokens(self) -> set[str]:
        """Those by which lanes are held, as far as that is known. One that has lapsed is not prolonged: nobody would
        work on what it holds.
        """
        tokens = {work.lane.lease_token or "" for work in self._active.values()}
        self._leases.keep(tokens)
        return {token for token in tokens if not self._leases.lapsed(token)}

    def _give_up_lapsed(self) -> None:
        """Of lanes that may be another's by now none rests here, and none is claimed with their token."""
        if self._leases.lapsed(self._leases.token):
            self._leases.change()
        for work in self._active.values():
            if self._leases.lapsed(work.lane.lease_token):
                work.dismiss()

    async def _dismiss(self) -> None:
        """Sends idle lanes home: one timer for all, since a lane waits after most of its events."""
        never = asyncio.Event()
        while True:
            await self._clock.wait(never, LINGER)
            long_ago = self._clock.now() - LINGER
            for work, since in self._shared.resting.items():
                if since > long_ago:
                    break
                if not work.awaits_siblings:
                    work.dismiss()
            self._origins.forget_idle()

    def _make_room(self) -> int:
        """How many lanes may be claimed. Those that rest, the longest first, make room for those that are due."""
        free = self._lanes - len(self._active)
        short = self._lanes // 4 - free
        if short > 0:
            for work in self._shared.resting:
                if short <= 0:
                    break
                if not work.dismissed:
                    work.dismiss()
                short -= 1
        return free

    async def _claim(self, group: asyncio.TaskGroup) -> int:
        """Takes what is due; returns how long to wait for the next that will be."""
        free = self._make_room()
        if free <= 0:
            return POLL_EVERY
        if self._leases.lapsed(self._leases.token):
            self._give_up_lapsed()
        origins, now = self._origins, self._clock.now()
        busy, share = origins.busy(now), origins.share
        token, until = self._leases.token, now + self._lease
        lanes = await self._store.claim_lanes(free, token, now, self._lease, busy, share)
        if lanes:
            self._leases.prolonged(token, until)
        for lane in lanes:
            self._begin(group, lane)
        if len(lanes) == free:
            return 0
        busy = origins.busy(now)
        due = await self._store.next_due(busy)
        if due is not None and due <= now and not lanes:
            return NOT_AT_ONCE
        moments = [moment for moment in (due, origins.next_free(now)) if moment is not None]
        return max(0, min([POLL_EVERY, *(moment - self._clock.now() for moment in moments)]))

    def _begin(self, group: asyncio.TaskGroup, lane: Lane) -> None:
        origin = self._origins.of(lane.origin)
        work = (LaneWork if lane.ordered else UnorderedWork)(self._shared, lane, origin)
        self._active[lane.run_id, lane.number] = work
        self._by_run.setdefault(lane.run_id, set()).add(work)
        task = group.create_task(work.run())
        task.add_done_callback(partial(self._finished, work))

    def _finished(self, work: LaneWork, _task: asyncio.Task[None]) -> None:
        run_id = work.lane.run_id
        # One commit may have given the lane back and to us again.
        if self._active.get((run_id, work.lane.number)) is work:
            del self._active[run_id, work.lane.number]
        self._nudge_siblings(work)
        beside = self._by_run[run_id]
        beside.discard(work)
        if not beside:
            del self._by_run[run_id]
        self._wake.set()
        if self._stopping and not self._active:
            self._stopped.set()
