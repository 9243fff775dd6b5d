"""A dispatcher at work on a real store, with a manual clock and a scripted transport."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from blockbuster import BlockBuster
from msgspec.structs import replace

from crewcast.clock import ManualClock
from crewcast.contract import webhooks
from crewcast.core import ids, signature, url
from crewcast.core import run as runs
from crewcast.core.backoff import RetryPolicy
from crewcast.core.event import Channel
from crewcast.core.lane import Lane
from crewcast.core.outcome import Outcome
from crewcast.core.run import Run, RunState
from crewcast.dispatch.dispatcher import Dispatcher, DispatchLimits
from crewcast.dispatch.transport import FakeTransport, Headers, Sent
from crewcast.store.sqlite import SQLiteStore

LEASE = 3_600_000_000_000
TOKEN = "worker"


def signatures(origin: str) -> signature.Signer:
    return signature.Signer(signature.key_of(signature.origin_secret(bytes(32), origin)))


def headers_of(sent: Sent) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in sent.headers}


class Gate(FakeTransport):
    """Holds the answers of some URLs (`origin` + `path`, or all of an origin) back until told to let them go.

    `flying` has how many requests of each origin are in flight, `most` how many there were at once.
    """

    def __init__(
        self, *held: str, script: Mapping[str, Sequence[Outcome]] | None = None, **more: Any
    ) -> None:
        super().__init__(script or {}, **more)
        self.held = set(held)
        self.flying: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self._moved = asyncio.Event()

    async def post(self, target: url.Target, headers: Headers, body: bytes) -> Outcome:
        origin = target.origin
        self.flying[origin] += 1
        self.most[origin] = max(self.most[origin], self.flying[origin])
        outcome = await super().post(target, headers, body)
        try:
            while not self.held.isdisjoint({origin, origin + target.path}):
                await self._moved.wait()
        finally:
            self.flying[origin] -= 1
        return outcome

    def let_go(self, *held: str) -> None:
        self.held.difference_update(held)
        self._moved.set()
        self._moved = asyncio.Event()


async def at_rest(store: Any) -> None:
    """Until whoever was woken has done what it does, and waits: nothing that it asked of the store is under way."""
    for _ in range(4):
        for _ in range(8):
            await asyncio.sleep(0.001)
        await store.renew_runs("nobody", 0)  # behind all that is being written
        while (store._reader if isinstance(store, SQLiteStore) else store.database)._under_way:
            await asyncio.sleep(0.001)


class World:
    dispatcher: Dispatcher

    def __init__(self, store: SQLiteStore, transport: FakeTransport, clock: ManualClock) -> None:
        self.store = store
        self.transport = transport
        self.clock = clock
        self._runs = 0

    async def run(self, *, ordered: bool = True, auth: bytes | None = None, **urls: str) -> Run:
        """A running run; `urls` by channel: task=, step=, crew=."""
        self._runs += 1
        now = self.clock.now()
        run = runs.new_run(ids.run_id(now, self._runs.to_bytes(10)), "crew", b"{}", now)
        by_url: dict[str, Channel] = {}
        for name, link in urls.items():
            by_url[link] = by_url.get(link, Channel(0)) | Channel[name.upper()]
        lanes = [
            Lane(run.id, n, link, url.parse(link).origin, channels, ordered=ordered, auth=auth)
            for n, (link, channels) in enumerate(by_url.items(), 1)
        ]
        await self.store.create_run(run, lanes, None, now)
        [claimed] = await self.store.claim_runs(["crew"], 1, TOKEN, now, LEASE)
        return claimed

    async def say(self, run: Run, *kinds: str) -> Run:
        """Appends one event of each kind: step, task, or crew (which ends the run)."""
        now, events = self.clock.now(), []
        for n, kind in enumerate(kinds, 1):
            if kind == "step":
                draft = webhooks.step(run.id, "t", "thought", now, content="hm")
            elif kind == "task":
                draft = webhooks.task_completed(run.id, "t", "completed", now, output="done")
            else:
                draft = webhooks.crew_completed(run.id, "completed", now, output="done")
                run = runs.end(run, RunState.COMPLETED, now)
            events.append(webhooks.encode(draft, run.id, run.seq + n, 1, 1 << 20))
        run = replace(run, seq=run.seq + len(events))
        assert await self.store.append(run, events, TOKEN)
        return run

    async def until(self, condition: Callable[[], bool]) -> None:
        """Lets the parts work until it is so; the store has a thread of its own, so this takes real moments."""
        for _ in range(30_000):
            if condition():
                return
            await asyncio.sleep(0.001)
        raise AssertionError(f"never so; sent: {self.sent()}")

    async def dead_letters(self, run: Run, count: int) -> list[tuple[int, str]]:
        """(seq, reason) once there are `count`: an outcome is committed soon after it is known."""
        for _ in range(30_000):
            found = await self.store.dead_letters(run.id)
            if len(found) >= count:
                return [(letter.seq, letter.reason) for letter in found]
            await asyncio.sleep(0.001)
        raise AssertionError(f"only {found}")

    async def lanes(self, run: Run, settled: Callable[[list[Lane]], bool]) -> list[Lane]:
        """The run's lanes once it is so: an outcome is committed soon after it is known."""
        for _ in range(30_000):
            found = await self.store.lanes(run.id)
            if settled(found):
                return found
            await asyncio.sleep(0.001)
        raise AssertionError(f"never so: {found}")

    async def quiet(self) -> None:
        """Until all that is due now has been sent: nothing comes any more."""
        count = -1
        while count != len(self.transport.sent):
            count = len(self.transport.sent)
            await at_rest(self.store)

    def sent(self) -> list[tuple[str, str]]:
        """(path, `seq/lane seq/attempt`) of each POST in its order."""
        found = []
        for one in self.transport.sent:
            headers = headers_of(one)
            numbers = "/".join(
                headers[f"crewcast-{name}"] for name in ("run-seq", "lane-seq", "delivery-attempt")
            )
            found.append((one.target.path, numbers))
        return found


@asynccontextmanager
async def world(
    folder: Path,
    transport: FakeTransport,
    *,
    policy: RetryPolicy | None = None,
    limits: DispatchLimits | None = None,
    seen_through: Callable[[SQLiteStore], Any] = lambda store: store,
    **more: Any,
) -> AsyncIterator[World]:
    """`seen_through` is between the dispatcher and its store."""
    store = await SQLiteStore.open(folder)
    clock = ManualClock()
    blockbuster = BlockBuster()
    blockbuster.activate()  # a call that blocks the loop is an error from here on
    dispatcher = Dispatcher(
        seen_through(store),
        transport,
        signatures,
        clock,
        lambda: 0.5,
        policy=policy or RetryPolicy(),
        limits=limits or DispatchLimits(),
        **more,
    )
    working = asyncio.create_task(dispatcher.run())
    try:
        made = World(store, transport, clock)
        made.dispatcher = dispatcher
        yield made
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        await store.close()
        blockbuster.deactivate()
