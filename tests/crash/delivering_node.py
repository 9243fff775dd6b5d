"""A node without CrewAI, to be killed: appends events for a few runs, delivers them, prints what was acknowledged.

`python delivering_node.py FOLDER URL`: goes on where the last one was killed. A line on stdin: append no more,
deliver everything, and end.
"""

import asyncio
import logging
import os
import random
import sys
from pathlib import Path

import uvloop
from msgspec.structs import replace

from crewcast.clock import RealClock
from crewcast.contract import webhooks
from crewcast.core import ids, signature, url
from crewcast.core import run as runs
from crewcast.core.backoff import RetryPolicy
from crewcast.core.event import Channel
from crewcast.core.lane import Lane
from crewcast.core.run import Run
from crewcast.dispatch.dispatcher import Dispatcher
from crewcast.dispatch.egress import EgressPolicy
from crewcast.dispatch.sender import Sender
from crewcast.store.sqlite import SQLiteStore

RUNS = 8
LEASE = 3_600_000_000
TOKEN = "node"


def signatures(origin: str) -> signature.Signer:
    return signature.Signer(signature.key_of(signature.origin_secret(bytes(32), origin)))


async def main(folder: Path, link: str) -> None:
    logging.disable(logging.WARNING)  # the receiver refuses some on purpose
    clock = RealClock()
    store = await SQLiteStore.open(folder)
    await store.void_leases(clock.now())
    found = await store.running_runs()
    if not found:
        for _ in range(RUNS):
            run = runs.new_run(ids.run_id(clock.now(), os.urandom(10)), "crew", b"{}", clock.now())
            lanes = [
                Lane(run.id, n, f"{link}/{name}", url.parse(link).origin, channels)
                for n, (name, channels) in enumerate({"step": Channel.STEP, "task": Channel.TASK}.items(), 1)
            ]
            await store.create_run(run, lanes, None, clock.now())
        found = await store.claim_runs(["crew"], RUNS, TOKEN, clock.now(), LEASE)
    sender = Sender(EgressPolicy(allow_http=True, allow_loopback=True))
    dispatcher = Dispatcher(
        store,
        sender,
        signatures,
        clock,
        random.random,
        policy=RetryPolicy(schedule=(20_000,), short_schedule=(20_000,)),
    )
    dispatching = asyncio.create_task(dispatcher.run())
    finish = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, finish.set)
    print("up", flush=True)
    await asyncio.gather(*(append(store, run, finish) for run in found))
    for run in found:
        while any(lane.cursor < lane.tail for lane in await store.lanes(run.id)):
            await asyncio.sleep(0.01)
    dispatching.cancel()
    await asyncio.gather(dispatching, return_exceptions=True)
    await sender.close()
    await store.close()


async def append(store: SQLiteStore, run: Run, finish: asyncio.Event) -> None:
    while not finish.is_set():
        count = random.randint(1, 3)
        events = []
        for seq in range(run.seq + 1, run.seq + 1 + count):
            now = RealClock().now()
            draft = (
                webhooks.task_completed(run.id, f"task-{seq}", "completed", now, output="x" * 200)
                if seq % 4 == 0
                else webhooks.step(run.id, "task", "thought", now, content="y" * 200)
            )
            events.append(webhooks.encode(draft, run.id, seq, 1, 1 << 20))
        after = replace(run, seq=run.seq + count)
        assert await store.append(after, events, TOKEN)
        run = after
        print("\n".join(event.id for event in events), flush=True)
        await asyncio.sleep(random.random() * 0.01)


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1]), sys.argv[2]))
