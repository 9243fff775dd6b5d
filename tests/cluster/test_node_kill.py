"""kill -9, SIGSTOP and restarts of PostgreSQL, at random, under load: nothing acknowledged is lost, order holds.

Some twenty seconds of it here; `make soak` sets CREWCAST_SOAK_SECONDS for the long form.
"""

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import partial

import pytest

from tests.cluster.cluster import LEASE, Cluster, Node, surroundings
from tests.cluster.forge import TASKS, Model, forge

SOAK = float(os.environ.get("CREWCAST_SOAK_SECONDS", "0"))
SETTLED_WITHIN = 90.0
CALLERS = 2
ASKS = "strike_task"  # a person, in `desk`


class Storm:
    """What happens to a cluster while `CALLERS` ask it for runs, and somebody approves what runs of `desk` ask.

    Whoever was killed is started anew at once.
    """

    def __init__(self, cluster: Cluster, dice: random.Random) -> None:
        self.cluster = cluster
        self.dice = dice
        self.done: Counter[str] = Counter()
        self.runs: dict[str, str] = {}  # by their orders
        self.asking: list[str] = []  # those that nobody has decided
        self._back: list[tuple[float, Node]] = []

    def rage(self, blows: int) -> None:
        """So many, and each kind at least once if there are as many."""
        over = threading.Event()
        callers = [threading.Thread(target=self._call, args=[over], daemon=True) for _ in range(CALLERS)]
        callers.append(threading.Thread(target=self._approve, args=[over], daemon=True))
        for caller in callers:
            caller.start()
        try:
            kinds = self._kinds()
            for turn in range(blows):
                if turn % len(kinds) == 0:
                    self.dice.shuffle(kinds)
                name, strike = kinds[turn % len(kinds)]
                strike()
                self.done[name] += 1
                self._wait(self.dice.uniform(0.5, 2.5))
            self._wait(LEASE + 2)
        finally:
            over.set()
            self.cluster.heal()
            for caller in callers:
                caller.join()

    def _kinds(self) -> list[tuple[str, Callable[[], None]]]:
        restart = self.cluster.postgres.restart
        return [
            *((f"kill {role}", partial(self._kill, role)) for role in ("api", "worker", "dispatcher")),
            *((f"stop {role}", partial(self._stop, role)) for role in ("api", "worker", "dispatcher")),
            ("kill crew", self._kill_crew),
            ("restart of PostgreSQL", partial(restart, signal.SIGINT)),
            ("crash of PostgreSQL", partial(restart, signal.SIGQUIT)),
        ]

    def _kill(self, role: str) -> None:
        node = self._victim(role)
        node.kill()
        self.cluster.again(node.name)

    def _kill_crew(self) -> None:
        for pid in self._victim("worker").crews_at_work:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _stop(self, role: str) -> None:
        """Past its lease, all of it or, of a worker, its own process alone."""
        node = self._victim(role)
        node.stop(whole=self.dice.random() < 0.5)
        self._back.append((time.monotonic() + LEASE + self.dice.uniform(0.2, 2), node))

    def _victim(self, role: str) -> Node:
        """Of workers one that is at work, if any is."""
        nodes = self.cluster.of(role)
        return self.dice.choice([node for node in nodes if len(node.crews_at_work) > 0] or nodes)

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (now := time.monotonic()) < until:
            for moment, node in [*self._back]:
                if moment <= now:
                    node.go_on()
                    self._back.remove((moment, node))
            time.sleep(0.05)

    def _call(self, over: threading.Event) -> None:
        dice = random.Random(self.dice.random())
        while not over.wait(dice.uniform(0.8, 1.6)):
            order, crew = self.cluster.order(heat_task=["weigh"]), dice.choice(["forge", "forge", "desk"])
            self.runs[order] = run = self.cluster.kickoff(crew, order=order)
            if crew == "desk":
                self.asking.append(run)
            if dice.random() < 0.3:
                assert self.cluster.kickoff(crew, order=order) == run

    def _approve(self, over: threading.Event) -> None:
        """Until there are no more to come and each is decided. Who gets no answer says it again."""
        while not over.wait(0.2) or self.asking:
            for run in [*self.asking]:
                if self.cluster.status(run)["state"] == "PAUSED":
                    body = {"execution_id": run, "task_id": ASKS, "human_feedback": "", "is_approve": True}
                    answer = self.cluster.ask("POST", "/resume", body)
                    assert answer.status == 200, answer.body
                    self.asking.remove(run)


def check(cluster: Cluster, storm: Storm) -> str:
    """All that is promised of its runs; what is to be told of them."""
    runs = set(storm.runs.values())
    assert len(runs) == len(storm.runs)
    logs = cluster.check(runs, within=SETTLED_WITHIN)
    rows = cluster.rows("SELECT id, state FROM crewcast.run")
    assert runs <= {run for run, _ in rows}
    assert {state for _, state in rows} == {"completed"}
    assert len(rows) == len(cluster.orders), "a kickoff that was repeated has begun more than one run"
    again = 0
    for log in logs:
        run = log[0]["id"].split("_")[1]
        [(kickoff_id, order)] = [item for item in cluster.orders.items() if item[0].replace("-", "") == run]
        calls = cluster.model.of(order)
        finished = [event for event in log if event["type"] == "task.completed"]
        assert [event["payload"]["task_id"] for event in finished] == TASKS
        reviews = Counter(event["type"] for event in log if event["channel"] == "human_input")
        assert all(number == 1 for number in reviews.values()), "a person was asked twice"
        for event in finished:
            committed = datetime.fromisoformat(event["at"]).timestamp()
            # Who was suspended on the way to its call makes it when it goes on: that one, and no more.
            later = Counter(
                call.pid
                for call in calls
                if call.task == event["payload"]["task_id"] and call.began > committed
            )
            assert all(number == 1 for number in later.values()), (kickoff_id, event, calls)
        again += max(event["run_attempt"] for event in log) > 1
    repeated = len(cluster.subscriber.repeated())
    blows = ", ".join(f"{times} x {name}" for name, times in sorted(storm.done.items()))
    return (
        f"{blows}: {len(runs)} runs, {again} of them in more than one try, {sum(map(len, logs))} events, 0 lost, "
        f"0 out of order, {repeated} repeated"
    )


@pytest.mark.timeout(300 + 3 * SOAK)
def test_no_kill_no_stop_and_no_restart_of_the_database_loses_or_doubles_anything(tmp_path):
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    crews = [forge(tmp_path), forge(tmp_path, "desk", FORGE_ASKS=ASKS)]
    with surroundings(tmp_path, Model(pace=lambda: random.uniform(0.1, 0.9))) as cluster:
        for number, wrong_by in enumerate((0, 90, -300), 1):
            cluster.start(f"work-{number}", "worker", *crews, wrong_by=wrong_by)
        for number, wrong_by in enumerate((0, -120), 1):
            cluster.start(f"api-{number}", "api", wrong_by=wrong_by)
            cluster.start(f"out-{number}", "dispatcher", wrong_by=-wrong_by)
        cluster.heal()
        until, rounds = time.monotonic() + SOAK, 0
        while not rounds or time.monotonic() < until:
            storm = Storm(cluster, dice)
            cluster.subscriber.refuses, cluster.subscriber.hangs = 0.05, 0.02
            storm.rage(9)
            print(check(cluster, storm))
            cluster.forget()
            rounds += 1
