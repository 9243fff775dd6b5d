"""The origins that lanes at work share: slots for requests, health, rate, and how many lanes each may take."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Protocol

from msgspec.structs import replace

from crewcast.clock import Clock
from crewcast.core.backoff import DAY, SECOND
from crewcast.core.errors import StoreError
from crewcast.core.origin import (
    Breaker,
    Health,
    HealthPolicy,
    LaneKey,
    Rate,
    held_until,
    may_send,
    observe,
    take,
)
from crewcast.core.outcome import Outcome
from crewcast.dispatch.limits import DispatchLimits
from crewcast.store.protocol import Store, level

log = logging.getLogger("crewcast.dispatch")

AT_HAND = 4  # lanes for each request in flight
SHARE = 16  # an origin takes at most this part of the lanes that are left
MOST_KEPT = 1024  # origins kept beyond those with lanes at work
FORGOTTEN_AFTER = 1 * DAY  # an open breaker that nobody needed any more
SAVE_AGAIN_AFTER = 1 * SECOND


class Signer(Protocol):
    def sign(self, message_id: str, timestamp: int, body: bytes) -> str:
        """The value of `webhook-signature`; the timestamp is in whole seconds."""


class Origin:
    """One origin. `held` counts its lanes that are claimed, `working` those of them that do not rest.

    Slots pass from hand to hand in the order asked for. (asyncio.Semaphore costs as much as the signature.)
    """

    def __init__(
        self, origins: "Origins", signer: Signer, slots: int, rate: Rate | None, health: Health
    ) -> None:
        self.signer = signer
        self.rate = rate
        self.health = health
        self.ailing = not health.well
        self.watched = self.ailing or health.failures > 0  # an accepted event changes what is known
        self.working = 0
        self.held = 0
        self.passed_over = False  # by the last claim, because it had its share
        self._origins = origins
        self._free = slots
        self._waiting: deque[asyncio.Future[None]] = deque()

    # --- slots ------------------------------------------------------------------------------

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

    def turn(self, now: int) -> int:
        """When the rate lets the next request go. The turn is reserved by asking."""
        assert self.rate is not None
        self.rate, at = take(self.rate, now)
        return at

    # --- lanes ------------------------------------------------------------------------------

    def begins(self) -> None:
        """One more lane is at work."""
        self.working += 1
        self._origins.working += 1

    def ceases(self) -> None:
        """A lane rests or is given back."""
        self.working -= 1
        self._origins.working -= 1
        if self.passed_over and self.working <= self._origins.cap - self._origins.share:
            self._origins.on_room()

    @property
    def has_room(self) -> bool:
        """A lane that rested may go on; else it is given back and comes when it is its turn."""
        return self.working <= self._origins.cap

    # --- health -----------------------------------------------------------------------------

    def ask(self, lane: LaneKey, now: int) -> int | None:
        """None if the lane may send now, else until when the origin takes nothing. Of one that is `ailing`."""
        health, until = may_send(self.health, lane, now, self._origins.policy)
        self._becomes(health)
        return until

    def told(self, outcome: Outcome, lane: LaneKey, now: int) -> None:
        """What came of an attempt. An event that is accepted tells something new of one that is `watched`."""
        self._becomes(observe(self.health, outcome, lane, now, self._origins.roll(), self._origins.policy))

    def is_now(self, health: Health) -> None:
        self.health = health
        self.ailing = not health.well
        self.watched = self.ailing or health.failures > 0

    def _becomes(self, health: Health) -> None:
        before = self.health
        if health is not before:
            self.is_now(health)
            if _shown(before) != _shown(health):
                self._origins.changed(before, health)


def _shown(health: Health) -> tuple[object, ...]:
    """What is worth a row: not every failure."""
    return health.state, health.retry_at, health.paused_until


class Origins:
    """All origins that have lanes at work, or a health to remember.

    Changes of state are saved by `keep`, in a task of its own: no delivery waits for them. `on_room` is
    called when lanes can be claimed that could not before.
    """

    def __init__(
        self,
        store: Store,
        signatures: Callable[[str], Signer],
        clock: Clock,
        roll: Callable[[], float],
        limits: DispatchLimits,
        policy: HealthPolicy,
        on_room: Callable[[], None],
    ) -> None:
        self.policy = policy
        self.roll = roll
        self.on_room = on_room
        self.working = 0
        self._store = store
        self._signatures = signatures
        self._clock = clock
        self._limits = limits
        self._rate = Rate.per_second(limits.rate) if limits.rate else None
        self._known: dict[str, Origin] = {}
        self._unsaved: dict[str, None] = {}
        self._to_save = asyncio.Event()

    async def load(self) -> None:
        """What was known before. A probe whose process is gone is not waited for."""
        now = self._clock.now()
        for health in await self._store.health():
            if health.state is Breaker.HALF_OPEN:
                health = replace(health, state=Breaker.OPEN, retry_at=now, probe=None)  # noqa: PLW2901
            self._known[health.origin] = self._new(health)

    def of(self, name: str) -> Origin:
        origin = self._known.get(name)
        if origin is None:
            origin = self._known[name] = self._new(Health(name))
        return origin

    def _new(self, health: Health) -> Origin:
        return Origin(self, self._signatures(health.origin), self._limits.per_origin, self._rate, health)

    def share_rate(self, dispatchers: int) -> None:
        """What all dispatchers together may send is what one of them may, so many times. Turns that were given stay."""
        if self._rate is None:
            return
        every = Rate.per_second(self._limits.rate / dispatchers).every
        if every == self._rate.every:
            return
        self._rate = replace(self._rate, every=every)
        for origin in self._known.values():
            assert origin.rate is not None
            origin.rate = replace(origin.rate, every=every)

    @property
    def cap(self) -> int:
        """How many lanes of one origin may be at work.

        Some times its requests in flight, so that there is always a next one while others are claimed. When many origins hang, it falls
        with what is left: each takes a part of the rest, so that none of it is ever used up.
        """
        left = self._limits.lanes - self.working
        return min(AT_HAND * self._limits.per_origin, max(1, left // SHARE))

    @property
    def share(self) -> int:
        """How many lanes of one origin a single claim may take: an origin below `cap - share` has room for them."""
        return max(1, self.cap // 2)

    def busy(self, now: int) -> list[str]:
        """Those that take no more lanes for now: they have their share, or their breaker or a pause holds them."""
        most = self.cap - self.share
        found = []
        for name, origin in self._known.items():
            origin.passed_over = origin.working > most
            if origin.passed_over or (origin.ailing and held_until(origin.health, now) is not None):
                found.append(name)
        return found

    def next_free(self, now: int) -> int | None:
        """When the next breaker or pause lets something through."""
        ends = [held_until(origin.health, now) for origin in self._known.values() if origin.ailing]
        return min((end for end in ends if end is not None), default=None)

    def reset(self, name: str) -> None:
        """Somebody says that the origin is well; the store has forgotten it."""
        origin = self._known.get(name)
        if origin is not None:
            origin.is_now(Health(name))
            self._save(name)  # what was on its way to the store when it was reset
        self.on_room()

    def changed(self, before: Health, after: Health) -> None:
        """Said once when an origin fails and once when it works again, however often it was tried."""
        self._save(after.origin)
        if before.state is Breaker.CLOSED and after.state is Breaker.OPEN:
            log.warning(
                "%s does not work: %s, %d times in a row; it is tried from time to time",
                after.origin,
                after.reason,
                after.failures,
            )
        elif before.state is not Breaker.CLOSED and after.state is Breaker.CLOSED:
            log.warning("%s works again", after.origin)
        if after.state is Breaker.CLOSED:
            self.on_room()

    def _save(self, name: str) -> None:
        self._unsaved[name] = None
        self._to_save.set()

    async def keep(self) -> None:
        """Saves what changed, until cancelled."""
        never = asyncio.Event()
        while True:
            await self._to_save.wait()
            self._to_save.clear()
            while self._unsaved:
                name = next(iter(self._unsaved))
                del self._unsaved[name]
                origin = self._known.get(name)
                try:
                    await self._store.save_origin(Health(name) if origin is None else origin.health)
                except StoreError as e:
                    log.log(level(e), "the health of %s cannot be saved: %s", name, e)
                    self._save(name)
                    await self._clock.wait(never, SAVE_AGAIN_AFTER)

    def forget_idle(self) -> None:
        """Lets origins go that nobody needs: they are as many as there are URLs."""
        now = self._clock.now()
        for name, origin in list(self._known.items()):
            retry_at = origin.health.retry_at
            if retry_at is not None and not origin.held and retry_at + FORGOTTEN_AFTER < now:
                origin.is_now(Health(name))
                self._save(name)
        if len(self._known) <= MOST_KEPT:
            return
        for name, origin in list(self._known.items()):
            turning = origin.rate is not None and origin.rate.full_at > now
            if not origin.held and not origin.ailing and not origin.health.failures and not turning:
                del self._known[name]
