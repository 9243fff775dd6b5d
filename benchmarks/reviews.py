"""What a person in the loop costs: a pause, going on, runs that wait, and a stop."""

import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from msgspec.structs import replace

from benchmarks.crew import ROOT, Server, uss
from crewcast.clock import RealClock
from crewcast.core import ids, moment
from crewcast.core import run as runs
from crewcast.store.sqlite import SQLiteStore

PROJECT = ROOT / "examples" / "reviews"
INPUTS = {"product": "baby monitor BM-2", "fault": "battery may overheat"}
ROUNDS = 10
WAITING = 500
FLAGS = ("--stub-llm", "--stub-delay", "0.05")


def ask(server: Server, method: str, path: str, body: Any = None) -> Any:
    with server.ask(method, path, body) as answer:
        return json.load(answer)


def kickoff(server: Server) -> str:
    kickoff_id: str = ask(server, "POST", "/kickoff", {"inputs": INPUTS})["kickoff_id"]
    return kickoff_id


def until(server: Server, kickoff_id: str, *states: str) -> None:
    while ask(server, "GET", f"/status/{kickoff_id}")["state"] not in states:
        time.sleep(0.005)


def approve(server: Server, kickoff_id: str) -> int:
    """When it was asked for."""
    now = time.time_ns() // 1000
    decision = {"execution_id": kickoff_id, "task_id": 2, "human_feedback": "", "is_approve": True}
    ask(server, "POST", "/resume", decision)
    return now


def when(events: list[Any], wanted: Callable[[Any], bool]) -> int:
    """Of the last one that is wanted."""
    return [moment.parse(event["at"]) for event in events if wanted(event)][-1]


def pause_and_resume(server: Server) -> None:
    pauses, resumes, rest = [], [], []
    for _ in range(ROUNDS):
        kickoff_id = kickoff(server)
        until(server, kickoff_id, "PAUSED")
        asked = approve(server, kickoff_id)
        until(server, kickoff_id, "SUCCESS")
        events = ask(server, "GET", f"/api/v1/runs/{kickoff_id}/events?limit=1000")["events"]
        paused = when(events, lambda event: event["type"] == "task.awaiting_human_feedback")
        answered = when(
            events[: next(n for n, event in enumerate(events) if event["channel"] == "human_input")],
            lambda event: event["type"] == "step",
        )
        approved = when(
            events,
            lambda event: event["type"] == "task.completed" and event["payload"]["task_id"] == "notice_task",
        )
        pauses.append((paused - answered) / 1000)
        resumes.append((approved - asked) / 1000)
        rest.append((when(events, lambda event: event["channel"] == "crew") - approved) / 1000)
    print(
        f"  from the model's answer to the pause {statistics.median(pauses):.0f} ms; from the decision to the approved "
        f"task {statistics.median(resumes):.0f} ms; the next task, and the end, {statistics.median(rest):.0f} ms later"
    )


def stop(server: Server) -> None:
    took = []
    [host] = psutil.Process(server.pid).children()
    for _ in range(ROUNDS):
        kickoff_id = kickoff(server)
        while not (children := host.children()):
            time.sleep(0.005)
        time.sleep(0.1)
        began = time.monotonic()
        ask(server, "POST", f"/stop/{kickoff_id}", {})
        psutil.wait_procs(children, timeout=30)
        took.append((time.monotonic() - began) * 1000)
        until(server, kickoff_id, "REVOKED", "PAUSED")
    print(
        f"  from a stop to the end of the crew's process: {statistics.median(took):.0f} ms, at most {max(took):.0f}"
    )


async def clones(data: Path, kickoff_id: str) -> str:
    """Many more runs that wait just as this one; one of them."""
    store, clock = await SQLiteStore.open(data), RealClock()
    first, review = await store.run(kickoff_id), await store.review(kickoff_id)
    assert first is not None
    assert review is not None
    kept, log = await store.journal(kickoff_id), await store.events(kickoff_id, limit=1000)
    run_id = kickoff_id
    for _ in range(WAITING - 1):
        now = clock.now()
        run_id = ids.run_id(now, os.urandom(10))
        run = runs.new_run(run_id, first.crew, first.inputs, now)
        await store.create_run(run, [], None, now)
        [run] = await store.claim_runs([first.crew], 1, "bench", now, 60_000_000)
        run = replace(run, completed_tasks=first.completed_tasks, total_tasks=first.total_tasks, seq=len(log))
        events = [replace(event, run_id=run_id) for event in log]
        asked = replace(review, run_id=run_id)
        assert await store.append(runs.pause(run, now), events, "bench", kept, asked)
    await store.close()
    return run_id


def waiting() -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        with Server(data, *FLAGS, project=PROJECT) as server:
            kickoff_id = kickoff(server)
            until(server, kickoff_id, "PAUSED")
        found = []
        for name in ("one", "many"):
            if name == "many":
                kickoff_id = asyncio.run(clones(data, kickoff_id))
            size = sum(file.stat().st_size for file in data.glob("*.db*"))
            with Server(data, *FLAGS, project=PROJECT) as server:
                ask(server, "GET", "/healthz")
                first = time.monotonic() - server.began
                ask(server, "GET", "/inputs")
                time.sleep(2)
                found.append((uss(server.pid), first, size))
                if name == "many":
                    approve(server, kickoff_id)
                    until(server, kickoff_id, "SUCCESS")
    (memory, first, size), (more_memory, later, more_size) = found
    each = (more_size - size) / (WAITING - 1) / 1024
    print(
        f"  {WAITING} runs that wait, against one: memory {more_memory:.1f} and {memory:.1f} MB, first answer after "
        f"{later:.2f} and {first:.2f} s, {each:.0f} KB of the file each"
    )


def report() -> None:
    print("\nReviews and stops, examples/reviews with the offline LLM at 50 ms a call (medians)")
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder), *FLAGS, project=PROJECT) as server:
        pause_and_resume(server)
        stop(server)
    waiting()
