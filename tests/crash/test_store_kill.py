"""kill -9 in the middle of commits: what was acknowledged is there, and what is there is whole."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from crewcast.core.event import Channel
from crewcast.store.sqlite import SQLiteStore

SECONDS = float(os.environ.get("CREWCAST_SOAK_SECONDS", "6"))
RUNS = 16
LEASE = 3_600_000_000

# Goes on with the runs that the last one left; prints `run seq cursor` for each acknowledged pair of writes.
WRITER = """
import asyncio, sys
from pathlib import Path
from msgspec.structs import replace
from crewcast.core import ids, run as runs
from crewcast.core.event import Channel, Event
from crewcast.core.lane import Attempt, Lane, Verdict
from crewcast.core.outcome import Outcome
from crewcast.store.protocol import Settlement
from crewcast.store.sqlite import SQLiteStore

RUNS, LEASE = int(sys.argv[2]), int(sys.argv[3])
OK = Outcome("ok", 200)

async def work(store, run, lane):
    while True:
        count = 1 + run.seq % 3
        after = replace(run, seq=run.seq + count, completed_tasks=run.seq + count)
        events = [
            Event(run.id, seq, Channel.STEP, "step", b"%d" % seq + b"x" * (seq % 3000), seq)
            for seq in range(run.seq + 1, after.seq + 1)
        ]
        appended = asyncio.ensure_future(store.append(after, events, "worker"))
        settling = []
        while lane.cursor < run.seq:
            seq = lane.cursor + 1
            lane = replace(lane, cursor=seq, settled=seq, due_at=seq)
            made = Attempt(run.id, 1, seq, 1, seq, OK, Verdict.ACCEPTED)
            settling.append(asyncio.ensure_future(store.settle(Settlement(lane, made))))
        assert await appended and all(await asyncio.gather(*settling))
        run = after
        print(run.id, run.seq, lane.cursor, flush=True)

async def main(folder):
    store = await SQLiteStore.open(folder)
    await store.void_leases(1)
    found = {run.id: run for run in await store.running_runs()}
    for n in range(RUNS - len(found)):
        run = runs.new_run(ids.run_id(n * 1000, n.to_bytes(10)), "crew", b"{}", 1)
        lane = Lane(run.id, 1, "https://a.example/x", "https://a.example", Channel.STEP)
        await store.create_run(run, [lane], None, 1)
    found |= {run.id: run for run in await store.claim_runs(["crew"], RUNS, "worker", 1, LEASE)}
    for run in found.values():
        if run.seq == 0:
            await store.append(replace(run, seq=1), [Event(run.id, 1, Channel.STEP, "step", b"1x", 1)], "worker")
    lanes = await store.claim_lanes(RUNS, "dispatcher", LEASE, LEASE)
    found = {run.id: run for run in await store.running_runs()}
    assert len(found) == RUNS, len(found)
    held = {lane.run_id: lane for lane in lanes}
    for run_id in found.keys() - held.keys():
        (held[run_id],) = await store.lanes(run_id)
        held[run_id] = replace(held[run_id], lease_token="dispatcher")
        run = replace(found[run_id], seq=found[run_id].seq + 1)
        await store.append(run, [Event(run_id, run.seq, Channel.STEP, "step", b"", 1)], "worker")
        found[run_id] = run
    await store.claim_lanes(RUNS, "dispatcher", LEASE, LEASE)
    print("up", flush=True)
    await asyncio.gather(*(work(store, run, held[run.id]) for run in found.values()))

asyncio.run(main(Path(sys.argv[1])))
"""


def killed(folder: Path, after: float) -> dict[str, tuple[int, int]]:
    """Runs a writer, kills it `after` seconds of work; the last acknowledged `seq` and cursor of each run."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(RUNS), str(LEASE)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    up = process.stdout.readline()
    time.sleep(after)
    process.kill()
    out, err = process.communicate()
    assert (up, err, process.returncode) == ("up\n", "", -signal.SIGKILL)
    lines = [line.split() for line in out.splitlines(keepends=True) if line.endswith("\n")]
    return {run: (int(seq), int(cursor)) for run, seq, cursor in lines}


async def check(folder: Path, acknowledged: dict[str, tuple[int, int]]) -> int:
    """Reads everything back as the next server would; how many events there are."""
    store = await SQLiteStore.open(folder)
    assert [*store._writes.connection.execute("PRAGMA integrity_check")] == [("ok",)]
    count = 0
    for run in await store.running_runs():
        seq, cursor = acknowledged.get(run.id, (0, 0))
        assert run.seq >= seq
        events = await store.events(run.id, limit=1_000_000)
        assert [event.seq for event in events] == list(range(1, run.seq + 1))
        assert all(event.channel is Channel.STEP for event in events)
        (lane,) = await store.lanes(run.id)
        assert lane.tail == run.seq
        assert lane.cursor >= cursor
        attempts = await store.attempts(run.id, limit=1_000_000)
        assert [made.seq for _, made in attempts] == list(range(1, lane.cursor + 1))
        count += run.seq
    await store.close()
    return count


def test_no_kill_loses_an_acknowledged_write(tmp_path: Path):
    dice = random.Random()
    acknowledged: dict[str, tuple[int, int]] = {}
    until = time.monotonic() + SECONDS
    kills = count = 0
    while time.monotonic() < until:
        acknowledged |= killed(tmp_path, dice.uniform(0, 0.3))
        kills += 1
        count = asyncio.run(check(tmp_path, acknowledged))
    print(f"{kills} kills, {count} events")
    assert kills > 2
    assert count > RUNS * kills
