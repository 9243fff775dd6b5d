"""kill -9 around pauses, decisions, ends and stops: afterwards each is there with all that belongs to it, or not
at all, and what was acknowledged is there.
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from crewcast.core.event import Channel
from crewcast.core.review import ReviewState
from crewcast.core.run import ENDED, Run, RunState
from crewcast.store.sqlite import SQLiteStore

SECONDS = float(os.environ.get("CREWCAST_SOAK_SECONDS", "4"))
RUNS = 12

# Works on its runs for ever: each appends, pauses, is decided with another URL, goes on, is given back, stopped,
# ended and replaced by a new one. The log says what was done, as `check` repeats it. Prints `run seq` once that
# is acknowledged, and `run stop` for a stop.
WRITER = """
import asyncio, os, sys
from itertools import count
from pathlib import Path
from msgspec.structs import replace
from crewcast.core import ids, review as reviews, run as runs
from crewcast.core.event import Channel, Event
from crewcast.core.lane import Lane
from crewcast.core.review import Decision, How, Review
from crewcast.core.run import RunState
from crewcast.store.sqlite import SQLiteStore

LEASE = 3_600_000_000
URLS = ["https://a.example/x", "https://b.example/x"]

def said(run, kind, channel=Channel.STEP):
    return Event(run.id, run.seq + 1, channel, kind, b"x" * (run.seq * 997 % 3000), 1)

def lane(run, n):
    return Lane(run.id, 1, URLS[n % 2], URLS[n % 2][:-2], Channel(31))

async def step(store, run, turn):
    seq = run.seq + 1
    entry = {"last": b"%d" % seq, f"n{seq}": b"y" * (seq * 331 % 5000), f"n{seq - 2}": None}
    if run.state is RunState.RUNNING:
        if turn % 7 == 6:
            asked = await store.request_stop(run.id, "kim")
            assert asked.stop == "kim", asked
            print(run.id, "stop", flush=True)
            after = replace(runs.end(run, RunState.CANCELLED, turn), seq=seq)
            assert await store.append(after, [said(run, "end", Channel.CREW)], "worker", entry)
            return after
        if turn % 3:
            number = 1 + len(await store.reviews(None, run.id))
            asked = reviews.ask(Review(run.id, number, "t", 1, "u", "a", "o" * 2000, turn, turn + 9, None, 2))
            after = replace(runs.pause(run, turn), seq=seq)
            assert await store.append(after, [said(run, "pause", Channel.TASK)], "worker", entry, asked)
            return after
        after = replace(run, seq=seq)
        assert await store.append(after, [said(run, "step")], "worker", entry)
        return after
    asked = await store.review(run.id)
    if run.state is RunState.WAITING:
        if turn % 5 == 4:
            after = replace(runs.end(run, RunState.CANCELLED, turn), seq=seq, stop="lee")
            assert await store.conclude(run, after, [said(run, "end", Channel.CREW)])
            return after
        if turn % 11 == 10:
            after = replace(runs.end(run, RunState.FAILED, turn), seq=seq)
            end = [said(run, "end", Channel.CREW)]
            assert await store.decide(reviews.expire(asked, turn), run, after, end)
            return after
        if turn % 2 and not asked.reminders:
            after = replace(run, seq=seq)
            assert await store.remind(reviews.remind(asked, turn), run, after, [said(run, "remind")])
            return after
        done = reviews.decide(asked, Decision(turn % 2 == 0, "f", "kim", How.API), turn)
        after = replace(runs.resume(run), seq=seq)
        assert await store.decide(done, run, after, [said(run, "decide")], [lane(run, seq)])
        return after
    raise AssertionError(run)

async def work(store, run, crew):
    for turn in count(os.urandom(1)[0]):
        if run.state.ended:
            run = runs.new_run(ids.run_id(turn * 1000, os.urandom(10)), crew, b"{}", 1)
            await store.create_run(run, [lane(run, 0)], None, 1, {"run": b"{}"})
        if run.state is RunState.QUEUED:
            (run,) = await store.claim_runs([run.crew], 1, "worker", turn, LEASE)
        run = await step(store, run, turn)
        print(run.id, run.seq, flush=True)

async def main(folder, count, run_ids):
    store = await SQLiteStore.open(folder)
    found = [await store.run(run_id) for run_id in run_ids]
    for run_id in await store.stops("worker"):
        at = [run.id for run in found].index(run_id)
        run = found[at]
        after = replace(runs.end(run, RunState.CANCELLED, 1), seq=run.seq + 1)
        assert await store.append(after, [said(run, "end", Channel.CREW)], "worker")
        found[at] = after
    for n in range(count - len(found)):
        run = runs.new_run(ids.run_id(n * 1000, os.urandom(10)), f"crew-{n}", b"{}", 1)
        await store.create_run(run, [lane(run, 0)], None, 1, {"run": b"{}"})
        found.append(run)
    print("up", flush=True)
    await asyncio.gather(*(work(store, run, run.crew) for run in found))

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
"""


def killed(folder: Path, run_ids: list[str], after: float) -> tuple[dict[str, int], set[str]]:
    """Runs a writer and kills it: the last acknowledged number of each run, and those that were to be stopped."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(RUNS), *run_ids],
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
    lines = [line.split() for line in out.splitlines(keepends=True) if line.endswith("\n")]
    return (
        {run_id: int(seq) for run_id, seq in lines if seq != "stop"},
        {run_id for run_id, seq in lines if seq == "stop"},
    )


async def check(folder: Path, acknowledged: dict[str, int], stopped: set[str]) -> tuple[list[str], int]:
    """Reads everything back as the next server would: the newest run of each crew, and how many events there are."""
    store = await SQLiteStore.open(folder)
    db = store._writes.connection
    assert [*db.execute("PRAGMA integrity_check")] == [("ok",)]
    newest: dict[str, str] = {}
    count = 0
    for run_id, crew in db.execute("SELECT id, crew FROM run ORDER BY key").fetchall():
        run = await store.run(run_id)
        assert run is not None
        assert run.seq >= acknowledged.get(run_id, 0)
        assert run_id not in stopped or run.stop is not None
        await whole(store, run)
        newest[crew] = run_id
        count += run.seq
    assert acknowledged.keys() <= {run_id for (run_id,) in db.execute("SELECT id FROM run")}
    await store.close()
    return list(newest.values()), count


async def whole(store: SQLiteStore, run: Run) -> None:
    """The log, the state, the reviews, the journal and the lanes of the run tell the same."""
    log = await store.events(run.id, limit=100_000)
    assert [event.seq for event in log] == list(range(1, run.seq + 1))
    kinds = [event.type for event in log]
    last = kinds[-1] if kinds else None
    asked = [one for _, one in await store.reviews(None, run.id, limit=100_000)]
    states = [one.state for one in asked]

    assert kinds.count("end") == (run.state in ENDED)
    assert (last == "end") == (run.state in ENDED)
    assert (last in ("pause", "remind")) == (run.state is RunState.WAITING)
    assert (run.state is RunState.QUEUED) == run.continues or last is None
    assert not run.continues or last == "decide"
    assert kinds.count("pause") == len(asked)
    assert kinds.count("decide") == states.count(ReviewState.DECIDED)
    assert kinds.count("remind") == sum(one.reminders for one in asked)
    assert states.count(ReviewState.PENDING) == (run.state is RunState.WAITING)
    assert run.attempt == (run.state is not RunState.QUEUED or run.continues)

    journal = await store.journal(run.id)
    written = [seq for seq, kind in enumerate(kinds, 1) if kind in ("step", "pause")]
    own_end = last == "end" and journal.get("last") == b"%d" % run.seq  # by the worker, with its entry
    written += [run.seq] if own_end else []
    left = {seq for seq in written if seq + 2 not in written}
    expected = {"run": b"{}"} | {f"n{seq}": b"y" * (seq * 331 % 5000) for seq in left}
    if written:
        expected["last"] = b"%d" % written[-1]
    assert journal == expected

    # Who hears what: the first URL until a decision, then the one that it named, from its own event on.
    heard: dict[str, list[int]] = {"a": [], "b": []}
    url = "a"
    for seq, kind in enumerate(kinds, 1):
        url = "ab"[seq % 2] if kind == "decide" else url
        heard[url].append(seq)
    for lane in await store.lanes(run.id):
        mine = heard.pop(lane.url[8])
        assert [(n, event.seq) for n, event in await store.lane_events(lane, 100_000)] == [
            *enumerate(mine, 1)
        ]
        assert lane.total == len(mine)
        assert lane.channels == (Channel(31) if lane.url[8] == url else Channel(0))
        assert (lane.due_at is not None) == bool(mine)
    assert not any(heard.values())


def test_no_kill_leaves_half_a_pause_a_decision_or_a_stop(tmp_path: Path):
    dice = random.Random()
    acknowledged: dict[str, int] = {}
    stopped: set[str] = set()
    run_ids: list[str] = []
    until = time.monotonic() + SECONDS
    kills = count = 0
    # Until it has worked between the kills too, for longer than it takes to come up.
    while time.monotonic() < until or kills < 3 or count <= RUNS * kills:
        seqs, stops = killed(tmp_path, run_ids, dice.uniform(0, 0.3))
        acknowledged |= seqs
        stopped |= stops
        kills += 1
        run_ids, count = asyncio.run(check(tmp_path, acknowledged, stopped))
    print(f"{kills} kills, {count} events, {len(stopped)} stops")
