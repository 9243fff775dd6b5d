"""A store at work: appends and settles of a few runs, as fast as it takes them. `told` hears of what was acknowledged.

`python -m tests.crash.writing_node FOLDER`: goes on with the runs that the last one left, prints `run seq cursor` for
whatever was acknowledged, until it is killed.
"""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from crewcast.core import ids
from crewcast.core import run as runs
from crewcast.core.event import Channel, Event
from crewcast.core.lane import Attempt, Lane, Verdict
from crewcast.core.outcome import Outcome
from crewcast.core.run import Run
from crewcast.store.protocol import Settlement
from crewcast.store.sqlite import SQLiteStore

RUNS = 16
LEASE = 3_600_000_000
OK = Outcome("ok", 200)

Told = Callable[[str, int, int], None]


def body(seq: int) -> bytes:
    return b"%d" % seq + b"x" * (seq % 3000)


def event(run_id: str, seq: int) -> Event:
    return Event(run_id, seq, Channel.STEP, "step", body(seq), seq)


async def work(store: SQLiteStore, run: Run, lane: Lane, rounds: int | None, told: Told) -> None:
    settled = lane.cursor
    while rounds is None or rounds > 0:
        rounds = None if rounds is None else rounds - 1
        count = 1 + run.seq % 3
        after = replace(run, seq=run.seq + count, completed_tasks=run.seq + count)
        events = [event(run.id, seq) for seq in range(run.seq + 1, after.seq + 1)]
        appended = asyncio.ensure_future(store.append(after, events, "worker"))
        settling = []
        while lane.cursor < run.seq:
            seq = lane.cursor + 1
            lane = replace(lane, cursor=seq, settled=seq, due_at=seq)
            made = Attempt(run.id, 1, seq, 1, seq, OK, Verdict.ACCEPTED)
            settling.append(asyncio.ensure_future(store.settle(Settlement(lane, made))))
        assert await appended
        told(run.id, after.seq, settled)
        assert all(await asyncio.gather(*settling))
        run, settled = after, lane.cursor
        told(run.id, run.seq, settled)


async def take_up(store: SQLiteStore, count: int) -> list[tuple[Run, Lane]]:
    """`count` runs with their lanes, all held: those that the last node left, and new ones."""
    await store.void_leases(1)
    found = {run.id: run for run in await store.running_runs()}
    for n in range(count - len(found)):
        run = runs.new_run(ids.run_id(n * 1000, n.to_bytes(10)), "crew", b"{}", 1)
        lane = Lane(run.id, 1, "https://a.example/x", "https://a.example", Channel.STEP)
        await store.create_run(run, [lane], None, 1)
    found |= {run.id: run for run in await store.claim_runs(["crew"], count, "worker", 1, LEASE)}
    for run in found.values():
        if run.seq == 0:
            await store.append(replace(run, seq=1), [event(run.id, 1)], "worker")
    lanes = await store.claim_lanes(count, "dispatcher", LEASE, LEASE)
    found = {run.id: run for run in await store.running_runs()}
    assert len(found) == count, len(found)
    held = {lane.run_id: lane for lane in lanes}
    for run_id in found.keys() - held.keys():
        (held[run_id],) = await store.lanes(run_id)
        held[run_id] = replace(held[run_id], lease_token="dispatcher")
        run = replace(found[run_id], seq=found[run_id].seq + 1)
        await store.append(run, [event(run_id, run.seq)], "worker")
        found[run_id] = run
    await store.claim_lanes(count, "dispatcher", LEASE, LEASE)
    return [(run, held[run.id]) for run in found.values()]


async def check(folder: Path, acknowledged: dict[str, tuple[int, int]]) -> int:
    """Reads everything back as the next server would; how many events there are."""
    store = await SQLiteStore.open(folder)
    assert [*store._writes.connection.execute("PRAGMA integrity_check")] == [("ok",)]
    found = await store.running_runs()
    assert acknowledged.keys() <= {run.id for run in found}
    for run in found:
        seq, cursor = acknowledged.get(run.id, (0, 0))
        assert run.seq >= seq
        events = await store.events(run.id, limit=1_000_000)
        assert [one.seq for one in events] == list(range(1, run.seq + 1))
        assert all(one == event(run.id, one.seq) for one in events)
        (lane,) = await store.lanes(run.id)
        assert lane.tail == run.seq
        assert lane.cursor >= cursor
        attempts = await store.attempts(run.id, limit=1_000_000)
        assert [made.seq for _, made in attempts] == list(range(1, lane.cursor + 1))
    await store.close()
    return sum(run.seq for run in found)


async def main(folder: Path) -> None:
    store = await SQLiteStore.open(folder)
    held = await take_up(store, RUNS)
    print("up", flush=True)

    def told(run_id: str, seq: int, cursor: int) -> None:
        print(run_id, seq, cursor, flush=True)

    await asyncio.gather(*(work(store, run, lane, None, told) for run, lane in held))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
