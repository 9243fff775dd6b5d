"""A node without CrewAI, to be killed: runs that append, lanes of every kind, replays; prints what was acknowledged.

`python -m tests.crash.delivering_node STORE URL [POINT N]`: STORE is a folder or a database. It goes on where the last one was killed, and kills
itself when it passes POINT (of `kill_points`) for the N-th time. A line on stdin: begin nothing more, deliver
everything, and end.

Each line that it prints is true once it is printed: `evt_...`, an event that `append` has stored, or
`again PATH COUNT`, a replay that was accepted and will send so many events to PATH.
"""

import asyncio
import logging
import os
import random
import signal
import sys
from collections import deque
from pathlib import Path

import uvloop
from msgspec.structs import replace

from crewcast.clock import RealClock
from crewcast.contract import webhooks
from crewcast.core import ids, signature, url
from crewcast.core import run as runs
from crewcast.core.backoff import SECOND, RetryPolicy
from crewcast.core.event import Channel
from crewcast.core.lane import Lane
from crewcast.core.run import Run, RunState
from crewcast.dispatch import dispatcher as dispatching
from crewcast.dispatch.dispatcher import Dispatcher
from crewcast.dispatch.egress import EgressPolicy
from crewcast.dispatch.sender import Sender
from crewcast.store.opening import open_store
from crewcast.store.protocol import Store
from tests.crash.kill_points import RECEIVED, WatchedSender, watch

# What the subscriber does with a lane of each kind is told in test_delivery_kill.py; that of `free` has no order.
KINDS = ("ordered", "free", "bad", "gone")
AT_ONCE = 2  # runs of a kind
LENGTH = 12  # events of a run before its crew event
LEASE = 3_600 * SECOND
TOKEN = "node"
CLOCK = RealClock()
AT_ONCE_AGAIN = RetryPolicy(schedule=(20_000,), short_schedule=(20_000,))


def signatures(origin: str) -> signature.Signer:
    return signature.Signer(signature.key_of(signature.origin_secret(bytes(32), origin)))


class Death:
    def __init__(self, point: str, passages: int) -> None:
        self._point = point
        self._left = passages

    def __call__(self, point: str) -> None:
        if point == self._point:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


class Node:
    def __init__(self, store: Store, link: str) -> None:
        self.store = store
        self.link = link
        self.finish = asyncio.Event()
        self.left: deque[Run] = deque()

    async def work(self, kind: str) -> None:
        while (run := await self.next(kind)) is not None:
            while run.seq < LENGTH:
                run = await self.append(run, random.randint(1, 3))
                await asyncio.sleep(random.random() * 0.005)
            await self.end(run)
            if random.random() < 0.3:
                await self.again(run.id, 1, dead_only=False)

    async def next(self, kind: str) -> Run | None:
        """One that the last node had at work, or one that waits, or a new one; None at the end."""
        if self.left:
            return self.left.popleft()
        now = CLOCK.now()
        if not self.finish.is_set():
            run = runs.new_run(ids.run_id(now, os.urandom(10)), kind, b"{}", now)
            lanes = [
                Lane(
                    run.id,
                    n,
                    f"{self.link}/{kind}/{name}",
                    url.parse(self.link).origin,
                    channels,
                    ordered=kind != "free",
                )
                for n, (name, channels) in enumerate(
                    {"step": Channel.STEP, "task": Channel.TASK, "crew": Channel.CREW}.items(), 1
                )
            ]
            await self.store.create_run(run, lanes, None, now)
        claimed = await self.store.claim_runs([kind], 1, TOKEN, now, LEASE)
        return claimed[0] if claimed else None

    async def append(self, run: Run, count: int) -> Run:
        events = []
        for seq in range(run.seq + 1, run.seq + 1 + count):
            now = CLOCK.now()
            draft = (
                webhooks.task_completed(run.id, f"task-{seq}", "completed", now, output="x" * 200)
                if seq % 3 == 0
                else webhooks.step(run.id, "task", "thought", now, content="y" * 200)
            )
            events.append(webhooks.encode(draft, run.id, seq, 1, 1 << 20))
        after = replace(run, seq=run.seq + count)
        assert await self.store.append(after, events, TOKEN)
        print("\n".join(event.id for event in events), flush=True)
        return after

    async def end(self, run: Run) -> None:
        now = CLOCK.now()
        draft = webhooks.crew_completed(run.id, "completed", now, output="z", tasks=[])
        event = webhooks.encode(draft, run.id, run.seq + 1, 1, 1 << 20)
        ended = replace(runs.end(run, RunState.COMPLETED, now), seq=run.seq + 1)
        assert await self.store.append(ended, [event], TOKEN)
        print(event.id, flush=True)

    async def again(self, run_id: str, lane: int, *, dead_only: bool) -> None:
        """A replay to a path of its own, so that it can be told from its lane and from other replays."""
        channel = ("step", "task", "crew")[lane - 1]
        path = f"/{'dead' if dead_only else 'again'}-{os.urandom(6).hex()}/{channel}"
        target = (self.link + path, url.parse(self.link).origin)
        made = await self.store.redeliver(
            run_id, now=CLOCK.now(), lane=lane, dead_only=dead_only, target=target
        )
        for replay in made:
            print("again", path, replay.total, flush=True)

    async def bring_back(self) -> None:
        """Asks for dead letters again, now and then."""
        while not self.finish.is_set():
            await asyncio.sleep(0.02)
            dead = await self.store.dead_lanes(None, 0, None, 50)
            if dead:
                one = random.choice(dead)
                await self.again(one.run_id, one.lane, dead_only=True)

    async def idle(self) -> None:
        while any(row.lanes for row in await self.store.origins()):
            await asyncio.sleep(0.02)

    async def deliver_all(self) -> None:
        await self.idle()
        while dead := await self.store.dead_lanes(None, 0, None, 50):
            for one in dead:
                await self.store.redeliver(one.run_id, now=CLOCK.now(), lane=one.lane, dead_only=True)
            await self.idle()


async def main(place: str, link: str, point: str = RECEIVED, passages: str = "0") -> None:
    logging.disable(logging.WARNING)  # the subscriber refuses some on purpose
    dispatching.LINGER = SECOND // 20  # lanes that rest are given back soon enough to be killed at it
    death = Death(point, int(passages))
    store = await open_store(Path(place), place if "://" in place else None)
    await store.void_leases(CLOCK.now())
    node = Node(store, link)
    node.left.extend(await store.running_runs())
    watch(store, death)
    sender = Sender(EgressPolicy(allow_http=True, allow_loopback=True))
    watched = WatchedSender(sender, (b"x-node", os.urandom(8).hex().encode()), death)
    dispatcher = Dispatcher(store, watched, signatures, CLOCK, random.random, policy=AT_ONCE_AGAIN)
    delivering = asyncio.create_task(dispatcher.run())
    asyncio.get_running_loop().add_reader(0, node.finish.set)
    print("up", flush=True)
    await asyncio.gather(node.bring_back(), *(node.work(kind) for kind in KINDS * AT_ONCE))
    await node.deliver_all()
    delivering.cancel()
    await asyncio.gather(delivering, return_exceptions=True)
    await sender.close()
    await store.close()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
