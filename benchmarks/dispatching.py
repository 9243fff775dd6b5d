"""A dispatcher as a process of its own: `python -m benchmarks.dispatching DATABASE_URL LEASE`, the lease in
seconds.

It says `ready`, begins at a line on its standard input, and ends when that closes.
"""

import asyncio
import random
import sys

import uvloop

from benchmarks.delivery import EGRESS, KEYS
from crewcast.clock import RealClock
from crewcast.core.backoff import SECOND
from crewcast.dispatch.dispatcher import Dispatcher
from crewcast.dispatch.limits import DispatchLimits
from crewcast.dispatch.sender import Sender
from crewcast.store.postgres import PostgresStore


async def dispatch(url: str, lease: int) -> None:
    store = await PostgresStore.open(url)
    sender = Sender(EGRESS)
    limits = DispatchLimits(lease=lease)
    dispatcher = Dispatcher(store, sender, KEYS.signer, RealClock(), random.random, limits=limits)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    work = asyncio.create_task(dispatcher.run())
    await asyncio.to_thread(sys.stdin.read)
    await dispatcher.stop(SECOND)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    await sender.close()
    await store.close()


if __name__ == "__main__":
    uvloop.run(dispatch(sys.argv[1], int(float(sys.argv[2]) * SECOND)))
