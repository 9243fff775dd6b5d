"""Many nodes over one PostgreSQL, all of them real processes, and those around them: callers, a model, a subscriber."""

import asyncio
import base64
import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any

import asyncpg

from crewcast.core import url
from crewcast.core.signature import origin_secret
from crewcast.webhooks import SignatureError, verify
from tests.cluster.forge import Model
from tests.support.mill import wait_until
from tests.support.postgres import Postgres
from tests.support.processes import descendants
from tests.support.receiver import Receiver, Request, check_lanes
from tests.support.server import ENDED, Answer, ServerProcess

# A crew hears from its worker within a quarter and waits for half: as long may this machine be busy.
LEASE = 6.0
DELIVERY_TIMEOUT = 2.0
HANGS = 504  # what is answered then comes too late
PASS_ON = ("--lease", f"{LEASE:g}", "--stop-grace", "0", "--delivery-timeout", f"{DELIVERY_TIMEOUT:g}")
UP_WITHIN = 90.0
WRONG_CLOCK = Path(__file__).parent / "wrong_clock"
NO_ANSWER = (OSError, HTTPException)  # of a node that is gone, is stopped, or was killed while it answered


class Node(ServerProcess):
    """One process with one role. `wrong_by`: seconds by which its machine's clock is wrong."""

    def __init__(
        self,
        name: str,
        role: str,
        folder: Path,
        database: str,
        key: str,
        crews: Sequence[Path] = (),
        wrong_by: float = 0,
    ) -> None:
        self.name = name
        self.role = role
        self.crews = crews
        self.wrong_by = wrong_by
        self.stopped: list[int] = []
        python_path = [str(WRONG_CLOCK), *filter(None, [os.environ.get("PYTHONPATH")])]
        super().__init__(
            list(crews),
            folder / name,
            *("--roles", role, "--node-name", name, "--retry-schedule", "0.3", *PASS_ON),
            # `dev`, where HTTP and loopback are spoken to or allowed: the subscriber has no certificate.
            command="serve" if role == "worker" else "dev",
            CREWCAST_DATABASE_URL=database,
            CREWCAST_KEY=key,
            PYTHONPATH=os.pathsep.join(python_path),
            WRONG_BY=f"{wrong_by:g}",
        )

    def wait_until_listening(self) -> None:
        assert self._listening.wait(UP_WITHIN), f"{self.name} is not up"
        assert self.process.poll() is None, f"{self.name} ended:\n{self.text}"

    @property
    def was_up(self) -> bool:
        return any(line.startswith(("crewcast is up", "crewcast serves")) for line in self.output)

    def stop(self, *, whole: bool = True) -> None:
        """SIGSTOP, as when a machine is suspended; not `whole`: of the node's own process and not of its crews."""
        for pid in [self.process.pid, *(descendants(self.process.pid) if whole else [])]:
            self._signal(pid, signal.SIGSTOP)
            self.stopped.append(pid)

    def go_on(self) -> None:
        while self.stopped:
            self._signal(self.stopped.pop(), signal.SIGCONT)

    def _signal(self, pid: int, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def kill(self) -> None:
        self.process.kill()
        self.go_on()  # those that are stopped end when they see that it is gone
        self.wait()

    @property
    def crews_at_work(self) -> list[int]:
        """The processes of its runs: it has one other, from which they are forked."""
        return descendants(self.process.pid)[1:]

    def has(self, pid: int) -> bool:
        return pid in self.crews_at_work


class Subscriber(Receiver):
    """Verifies everything, and refuses or hangs as often as it is told."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self.secret = ""
        self.refuses = self.hangs = 0.0  # of the requests
        self.statuses: list[int] = []
        self.wrong: list[str] = []
        self.late: list[float] = []  # seconds between signature and arrival, by this machine's clock

    def _answer(self, request: Request, n: int) -> int:
        try:
            delivery = verify(self.secret, request.headers, request.body, tolerance=3600)
        except SignatureError as e:
            self.wrong.append(f"{request.event_id}: {e}")
            status = 401
        else:
            self.late.append(time.time() - delivery.timestamp)
            chance = random.random()
            hangs = self.refuses <= chance < self.refuses + self.hangs
            status = 500 if chance < self.refuses else HANGS if hangs else 204
        self.statuses.append(status)
        return status

    def _take(self, request: Request) -> int:
        status = super()._take(request)
        if status == HANGS:
            time.sleep(1.2 * DELIVERY_TIMEOUT)
        return status

    def forget(self) -> None:
        with self._changed:
            for kept in (self.requests, self.statuses, self.late):
                kept.clear()

    def repeated(self, since: int = 0) -> list[str]:
        """The events that were accepted more than once, of the requests after so many."""
        accepted = Counter(one.event_id for one, status in self.answered[since:] if status < 300)
        return [event for event, times in accepted.items() if times > 1]

    @property
    def answered(self) -> list[tuple[Request, int]]:
        return list(zip(self.requests, self.statuses, strict=False))


class Cluster:
    """The nodes by name, and what their callers know. A node that is restarted keeps its name and data folder."""

    def __init__(self, folder: Path, postgres: Postgres, model: Model, subscriber: Subscriber) -> None:
        self.folder = folder
        self.postgres = postgres
        self.model = model
        master = os.urandom(32)
        self._key = base64.b64encode(master).decode()
        subscriber.secret = origin_secret(master, url.parse(subscriber.url).origin)
        self.subscriber = subscriber
        self.nodes: dict[str, Node] = {}
        self._former: list[Node] = []
        self.orders: dict[str, str] = {}  # kickoff id -> order
        self._placed = 0

    def start(self, name: str, role: str, *crews: Path, wrong_by: float = 0) -> Node:
        """`name` anew, not waited for."""
        node = Node(name, role, self.folder, self.postgres.url(), self._key, crews, wrong_by)
        self.nodes[name] = node
        return node

    def again(self, name: str) -> Node:
        """A node that has ended, started anew as it was; not waited for."""
        former = self.nodes[name]
        former.wait(0)
        self._former.append(former)
        return self.start(name, former.role, *former.crews, wrong_by=former.wrong_by)

    def end(self) -> None:
        for node in self.nodes.values():
            node.__exit__()

    def of(self, role: str) -> list[Node]:
        return [node for node in self.nodes.values() if node.role == role]

    def heal(self) -> None:
        """Everybody is there, and the others know it."""
        self.subscriber.refuses = self.subscriber.hangs = 0
        for name, node in list(self.nodes.items()):
            node.go_on()
            if node.process.poll() is not None:
                # A node that does not find its database does not start; once it is up, it waits for it.
                by_itself = node.was_up and node.process.returncode not in (0, -signal.SIGKILL)
                assert not by_itself, f"{name} ended by itself:\n{node.text}"
                self.again(name)
        for node in self.nodes.values():
            node.wait_until_listening()
        self.wait_until_ready(*self.nodes)

    def wait_until_ready(self, *names: str) -> None:
        """Until these are alive with their crews loaded, and every API knows."""

        def ready() -> bool:
            there = {one["name"]: one for one in self.listed() if one["state"] == "alive"}
            if not all(
                name in there and len(there[name]["crews"]) == len(self.nodes[name].crews) for name in names
            ):
                return False
            crews = {crew for name in names for crew in there[name]["crews"]}
            return all(crews <= self.ready_crews(api) for api in self.of("api"))

        try:
            wait_until(ready, UP_WITHIN)
        except AssertionError:
            raise AssertionError(self.story()) from None

    def ready_crews(self, api: Node) -> set[str]:
        try:
            crews = api.ask("GET", "/crews", timeout=3).json["crews"]
        except NO_ANSWER:
            return set()
        return {crew["name"] for crew in crews if crew["state"] == "ready"}

    def listed(self) -> list[Any]:
        """The nodes as `crewcast nodes` has them."""
        return self.ask("GET", "/api/v1/nodes").json["nodes"]

    def story(self) -> str:
        """What they have logged, and those before them."""
        every = [*self._former, *self.nodes.values()]
        return "\n".join(f"--- {node.name}\n{''.join(node.output[-200:])}" for node in every)

    def ask(self, method: str, path: str, body: Any = None, within: float = 60, **headers: str) -> Answer:
        """Of any API that answers; asked again until one has something to say."""
        until = time.monotonic() + within
        while True:
            there = [node for node in self.of("api") if node.url]
            try:
                answer = random.choice(there).ask(method, path, body, timeout=3, **headers)
            except (IndexError, *NO_ANSWER) as e:
                told = str(e)
            else:
                if answer.status < 500 and answer.status != 409:
                    return answer
                told = f"{answer.status} {answer.body!r}"
            assert time.monotonic() < until, f"{method} {path}: {told}\n{self.story()}"
            time.sleep(0.1)

    def order(self, **script: list[str]) -> str:
        """A new one, whose model follows the script."""
        self._placed += 1
        order = f"order-{self._placed}"
        self.model.follow(order, **script)
        return order

    def kickoff(
        self, crew: str = "forge", *, order: str | None = None, attempts: int = 100, **script: list[str]
    ) -> str:
        """An acknowledged one. Its request is repeated with the same key, to any API, until there is an answer."""
        order = self.order(**script) if order is None else order
        body = {
            "inputs": {"order": order, "model": self.model.url},
            "max_attempts": attempts,
            "humanInputWebhookUrl": f"{self.subscriber.url}/human_input",
            **self.subscriber.urls(),
        }
        answer = self.ask("POST", f"/crews/{crew}/kickoff", body, idempotency_key=order)
        assert answer.status == 200, answer.body
        kickoff_id: str = answer.json["kickoff_id"]
        assert self.orders.setdefault(kickoff_id, order) == order
        return kickoff_id

    def rows(self, query: str) -> list[tuple]:
        """From the database itself."""

        async def ask() -> list[tuple]:
            connection = await asyncpg.connect(self.postgres.url())
            try:
                return [tuple(row) for row in await connection.fetch(query)]
            finally:
                await connection.close()

        return asyncio.run(ask())

    def status(self, kickoff_id: str) -> Any:
        return self.ask("GET", f"/status/{kickoff_id}").json

    def wait_for(self, kickoff_id: str, *states: str, within: float = 60) -> Any:
        """The status of a run once it is in one of these states."""
        until = time.monotonic() + within
        while (status := self.status(kickoff_id))["state"] not in states:
            assert time.monotonic() < until, f"still {status}\n{self.story()}"
            time.sleep(0.05)
        return status

    def log(self, kickoff_id: str) -> list[Any]:
        return self.ask("GET", f"/api/v1/runs/{kickoff_id}/events?limit=1000").json["events"]

    def worker_of(self, kickoff_id: str, task: str, n: int = 1) -> Node:
        """The node on which the model was called for the n-th time."""
        call = self.model.wait_for(self.orders[kickoff_id], task, n)
        return next(node for node in self.of("worker") if node.has(call.pid))

    def forget(self) -> None:
        """What was kept of deliveries and calls, once it was checked."""
        self.subscriber.forget()
        self.model.calls.clear()

    def check(self, runs: Iterable[str], state: str = "SUCCESS", within: float = 60) -> list[list[Any]]:
        """Each run ended so, with one crew event; all of its events were accepted, the first deliveries of a lane in
        its order, and repetitions are the same. The logs.
        """
        logs = []
        for run in runs:
            status = self.wait_for(run, *ENDED, within=within)
            assert status["state"] == state, f"{status}\n{self.story()}"
            log = self.log(run)
            assert [event["seq"] for event in log] == list(range(1, len(log) + 1))
            assert [event["channel"] for event in log].count("crew") == 1
            assert log[-1]["channel"] == "crew"
            logs.append(log)
        self.check_deliveries({event["id"] for log in logs for event in log}, within)
        return logs

    def check_deliveries(self, events: set[str], within: float) -> None:
        runs = {event.split("_")[1] for event in events}

        def ours() -> list[tuple[Request, int]]:
            return [one for one in self.subscriber.answered if one[0].event_id.split("_")[1] in runs]

        def missing() -> set[str]:
            return events - {one.event_id for one, status in ours() if 200 <= status < 300}

        try:
            wait_until(lambda: not missing(), within)
        except AssertionError:
            raise AssertionError(f"missing: {sorted(missing())}\n{self.story()}") from None
        got = ours()
        assert {one.event_id for one, _ in got} == events
        bodies: dict[tuple[str, str], bytes] = {}
        for one, _ in got:
            assert bodies.setdefault((one.event_id, one.path), one.body) == one.body, (
                "the same id, another body"
            )
        check_lanes([one for one, _ in got])
        assert self.subscriber.wrong == []


@contextlib.contextmanager
def surroundings(folder: Path, model: Model | None = None) -> Iterator[Cluster]:
    """A cluster without nodes yet, with all that it needs around it."""
    postgres = Postgres()
    with contextlib.ExitStack() as stack:
        stack.callback(postgres.remove)
        cluster = Cluster(
            folder,
            postgres.start(),
            stack.enter_context(model or Model()),
            stack.enter_context(Subscriber()),
        )
        stack.callback(cluster.end)
        yield cluster
