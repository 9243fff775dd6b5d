"""kill -9 of the server, and of the crews' processes, at each transition of a run's states.

The model writes each of its calls down before it answers, so what was done twice is seen. `make soak` sets
CREWCAST_SOAK_SECONDS for the long form.
"""

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from tests.support.mill import ASKING, TASKS, Sack, desk, wait_for_state, wait_until
from tests.support.processes import descendants, kill
from tests.support.receiver import Receiver, check_lanes, first_deliveries
from tests.support.server import ENDED, ServerProcess

SOAK = float(os.environ.get("CREWCAST_SOAK_SECONDS", "0"))
ATTEMPTS = 100
NARROW = "\n[crews.narrow]\nmax_runs = 1\n"


class World:
    """A data folder, its servers one after the other, and its runs."""

    def __init__(self, folder: Path, receiver: Receiver) -> None:
        self.folder = folder
        self.receiver = receiver
        self.crews = [desk(folder), desk(folder, "", "narrow")]
        (folder / "crewcast.toml").write_text(NARROW)
        self.sacks: dict[str, Sack] = {}
        self.approved: set[str] = set()
        self.begin()

    def begin(self) -> None:
        server = ServerProcess(
            self.crews,
            self.folder / "data",
            *("--config", str(self.folder / "crewcast.toml"), "--stop-grace", "60"),
            *("--max-runs", "20", "--retry-schedule", "0.2"),
        )
        server.__enter__()
        self.server = server
        for name in ("desk", "narrow"):
            assert server.ask("GET", f"/crews/{name}/inputs", timeout=60).status == 200

    def end(self) -> None:
        self.server.__exit__()

    def kill_server(self) -> None:
        self.server.kill()
        self.begin()

    def kill_children(self) -> None:
        for host in descendants(self.server.process.pid)[:1]:
            kill(descendants(host))

    def start(self, crew: str = "desk", **script: list[Any]) -> str:
        sack = Sack(self.folder / "sacks" / str(len(self.sacks)), **script)
        kickoff_id = self.server.kickoff(
            sack.inputs,
            at=f"/crews/{crew}",
            max_attempts=ATTEMPTS,
            humanInputWebhookUrl=f"{self.receiver.url}/human_input",
            **self.receiver.urls(),
        )
        self.sacks[kickoff_id] = sack
        return kickoff_id

    def paused(self, **script: list[Any]) -> str:
        kickoff_id = self.start("desk", **script)
        wait_for_state(self.server, kickoff_id, "PAUSED", within=60)
        return kickoff_id

    def decide(self, kickoff_id: str, *, approve: bool = True) -> None:
        body = {
            "execution_id": kickoff_id,
            "task_id": ASKING,
            "human_feedback": "" if approve else "Finer.",
            "is_approve": approve,
        }
        answer = self.server.ask("POST", "/resume", body)
        assert answer.status == 200, answer.body

    def stop(self, kickoff_id: str) -> int:
        return self.server.ask("POST", f"/stop/{kickoff_id}").status

    def check(self, kickoff_id: str, state: str) -> None:
        """The run ended so, once, and nothing that was committed was done twice."""
        status = wait_for_state(self.server, kickoff_id, *ENDED, within=60)
        assert status["state"] == state, status
        log, sack = self.server.events(kickoff_id), self.sacks[kickoff_id]
        assert [event["seq"] for event in log] == list(range(1, len(log) + 1))
        assert [event["channel"] for event in log].count("crew") == 1
        assert log[-1]["channel"] == "crew"
        told = [
            (event["type"], event["payload"]["task_id"], event["at"])
            for event in log
            if event["channel"] == "task"
        ]
        finished = [task for kind, task, _ in told if kind == "task.completed"]
        assert finished == TASKS[: len(finished)]
        if state == "SUCCESS":
            assert finished == TASKS
            assert [task["task_id"] for task in status["result"]["tasks"]] == TASKS
        calls = [(call["task"], call["at"]) for call in sack.noted("calls")]
        for kind, task, at in told:
            committed = datetime.fromisoformat(at).timestamp()
            later = [at for of, at in calls if of == task and at > committed]
            if kind == "task.completed" or kickoff_id in self.approved:
                assert later == [], f"{task} was {kind}, and done again"

    def check_deliveries(self) -> None:
        """All that was told arrives, in order, with the ids of the log."""
        ids = {event["id"] for run in self.sacks for event in self.server.events(run)}
        self.receiver.wait(lambda got: ids <= {one.event_id for one in got}, 60)
        check_lanes(self.receiver.requests)
        assert {one.event_id for one in first_deliveries(self.receiver.requests)} == ids


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with Receiver() as receiver:
        world = World(tmp_path_factory.mktemp("kills"), receiver)
        yield world
        world.end()


def settle(world: World, kill: Callable[[], None]) -> None:
    """A run at each place of the table; `kill`; each of them as it has to end."""
    holding = world.start("narrow", grind_task=["wait", "wait"])
    queued = world.start("narrow")
    working = world.start(grind_task=["wait", "wait"])
    stopping = world.start(clean_task=["deaf", "wait"])
    paused = world.paused()
    stopped = world.paused()
    continuing = world.paused(pack_task=["wait", "wait"])
    rejected = world.paused(grind_task=["say", "wait", "wait"])
    decided = world.paused()
    world.decide(continuing)
    world.decide(rejected, approve=False)
    world.approved |= {paused, continuing, decided}
    for run, task, n in ((holding, ASKING, 1), (working, ASKING, 1), (stopping, "clean_task", 1),
                         (continuing, "pack_task", 1), (rejected, ASKING, 2)):  # fmt: skip
        world.sacks[run].wait_for(task, n)
    assert world.server.status(queued)["state"] == "PENDING"
    assert world.stop(stopping) == 202
    assert world.stop(stopped) == 200
    world.decide(decided)
    kill()
    for run in (holding, working, continuing, rejected):
        world.sacks[run].go()
    assert world.server.status(paused)["state"] == "PAUSED"
    world.decide(paused)
    for run in (working, rejected):
        wait_for_state(world.server, run, "PAUSED", within=60)
        world.decide(run)
    for run in (holding, queued, working, paused, continuing, rejected, decided):
        world.check(run, "SUCCESS")
    for run in (stopping, stopped):
        world.check(run, "REVOKED")
    assert world.sacks[stopping].counts == {"clean_task": 1}
    assert world.sacks[queued].counts == dict.fromkeys(TASKS, 1)
    assert world.sacks[paused].counts == dict.fromkeys(TASKS, 1)
    # Once before the kill, once after it.
    assert world.sacks[working].counts == {"clean_task": 1, "grind_task": 2, "pack_task": 1}
    assert world.sacks[continuing].counts == {"clean_task": 1, "grind_task": 1, "pack_task": 2}
    assert world.sacks[rejected].counts == {"clean_task": 1, "grind_task": 3, "pack_task": 1}


@pytest.mark.timeout(240)
def test_a_kill_at_each_place_of_the_state_machine_does_nothing_twice(world):
    settle(world, world.kill_children)
    settle(world, world.kill_server)
    world.check_deliveries()
    world.kill_server()
    wait_until(lambda: list((world.folder / "data" / "storage").iterdir()) == [])


@pytest.mark.timeout(240 + 3 * SOAK)
def test_a_kill_at_any_moment_does_nothing_twice(world):
    """Runs go by themselves, somebody approves whatever waits, and something is killed at a moment of chance."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    until, rounds = time.monotonic() + SOAK, 0
    while rounds < 2 or time.monotonic() < until:
        runs = [world.start() for _ in range(4)]
        world.approved |= set(runs)
        over = threading.Event()
        approver = threading.Thread(target=approve_all, args=[world, runs, over])
        approver.start()
        for _ in range(3):
            time.sleep(dice.uniform(0, 0.5))
            world.kill_children()
        if rounds % 4 == 1:
            time.sleep(dice.uniform(0, 1))
            world.kill_server()
        for run in runs:
            wait_until(lambda run=run: world.server.status(run)["state"] in ENDED, 100)
        over.set()
        approver.join()
        for run in runs:
            world.check(run, "SUCCESS")
        rounds += 1
    world.check_deliveries()


def approve_all(world: World, runs: list[str], over: threading.Event) -> None:
    """Asks again whenever the server does not answer."""
    while not over.wait(0.02):
        for run in runs:
            try:
                if world.server.status(run)["state"] == "PAUSED":
                    world.decide(run)
            except (OSError, HTTPException):
                time.sleep(0.1)
