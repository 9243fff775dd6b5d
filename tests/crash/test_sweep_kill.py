"""kill -9 in the middle of deleting: hidden stays hidden, the rest goes with the next sweeps, nothing else does."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from crewcast.core import run as runs
from crewcast.core.event import Channel
from crewcast.core.run import Run, RunState
from crewcast.store.protocol import Removal
from crewcast.store.sqlite import SQLiteStore
from tests.contract.store.world import (
    ALL,
    AT_ONCE,
    BUSY,
    NOW,
    OK,
    WORKER,
    append,
    claimed,
    event,
    running,
    settlement,
)

SECONDS = float(os.environ.get("CREWCAST_SOAK_SECONDS", "4"))
EVENTS = 30
TABLES = ("run", "kickoff", "event", "lane", "attempt", "dead_letter")

# Deletes the runs that it is given, in slices of 7 rows; prints each run that is hidden.
SWEEPER = """
import asyncio, sys
from pathlib import Path
from crewcast.store.protocol import Removal
from crewcast.store.sqlite import SQLiteStore

async def main(folder, run_ids):
    store = await SQLiteStore.open(folder)
    print("up", flush=True)
    for run_id in run_ids:
        assert await store.delete_run(run_id) is Removal.HIDDEN
        print(run_id, flush=True)
        for _ in range(9):
            await store.sweep(7)
    while await store.sweep(7):
        pass
    await asyncio.Event().wait()

asyncio.run(main(Path(sys.argv[1]), sys.argv[2:]))
"""


async def delivered_run(store: SQLiteStore) -> Run:
    """A run with attempts and dead letters, which has ended."""
    run = await append(store, await running(store, ALL), *[Channel.STEP] * EVENTS)
    (mine,) = await claimed(store)
    for seq in range(1, EVENTS + 1):
        outcome = BUSY if seq % 3 == 0 else OK
        written = settlement(mine, event(run, seq), outcome, policy=AT_ONCE, release=seq == EVENTS)
        assert await store.settle(written)
        mine = written.lane
    ended = runs.end(run, RunState.COMPLETED, NOW)
    assert await store.append(ended, [], WORKER)
    return ended


def killed(folder: Path, run_ids: list[str], after: float) -> list[str]:
    """The runs that were hidden when the sweeper was killed, `after` seconds into its work."""
    process = subprocess.Popen(
        [sys.executable, "-c", SWEEPER, str(folder), *run_ids],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    up = process.stdout.readline()
    time.sleep(after)
    process.kill()
    out, err = process.communicate()
    assert (up, err, process.returncode) == ("up\n", "", -signal.SIGKILL)
    return [line.strip() for line in out.splitlines(keepends=True) if line.endswith("\n")]


def counts(store: SQLiteStore) -> list[int]:
    db = store._writes.connection
    return [db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES]


async def prepare(folder: Path, count: int) -> tuple[list[Run], list[int]]:
    """One run that stays and `count` to be deleted; how many rows there are with the first alone."""
    store = await SQLiteStore.open(folder)
    made = [await delivered_run(store)]
    alone = counts(store)
    made += [await delivered_run(store) for _ in range(count)]
    await store.close()
    return made, alone


async def check(folder: Path, made: list[Run], hidden: list[str], alone: list[int]) -> bool:
    """What was hidden is unknown, all else whole; whether the kill left rows to be swept."""
    store = await SQLiteStore.open(folder)
    assert [*store._writes.connection.execute("PRAGMA integrity_check")] == [("ok",)]
    left = []
    for run in made:
        if run.id in hidden:
            assert await store.run(run.id) is None
            assert await store.attempts(run.id) == []
            assert await store.undelivered(run_id=run.id) == []
        elif await store.run(run.id) is not None:  # hidden just before the kill, and not told
            left.append(run.id)
            assert len(await store.events(run.id, limit=1000)) == EVENTS
            assert [one.seq for _, one in await store.attempts(run.id)] == list(range(1, EVENTS + 1))
            assert len(await store.undelivered(run_id=run.id)) == EVENTS // 3
    assert made[0].id in left
    unfinished = counts(store) != [count * len(left) for count in alone]
    while await store.sweep(7):
        pass
    assert counts(store) == [count * len(left) for count in alone]
    for run_id in left[1:]:
        assert await store.delete_run(run_id) is Removal.HIDDEN
    while await store.sweep(1000):
        pass
    assert counts(store) == alone
    await store.close()
    return unfinished


def test_no_kill_leaves_half_a_run(tmp_path: Path):
    dice = random.Random()
    until = time.monotonic() + SECONDS
    kills = unfinished = 0
    while time.monotonic() < until or not unfinished:
        folder = tmp_path / str(kills)
        made, alone = asyncio.run(prepare(folder, 12))
        hidden = killed(folder, [run.id for run in made[1:]], dice.uniform(0, 0.12))
        unfinished += asyncio.run(check(folder, made, hidden, alone))
        kills += 1
        assert kills < 50 or unfinished
    print(f"{kills} kills, {unfinished} of them in the middle of a sweep")
