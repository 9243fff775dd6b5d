"""kill -9 between append and settle: nothing acknowledged is lost, order holds, what repeats is bounded.

On each store, once at random moments under load, once at each point that `kill_points` names. A few seconds each here;
`make soak` sets CREWCAST_SOAK_SECONDS for the long form.
"""

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from crewcast.core.lane import Verdict
from crewcast.dispatch.lanes import UNSETTLED
from crewcast.dispatch.unordered import WINDOW
from crewcast.store.opening import open_store
from crewcast.store.sqlite import SQLiteStore
from tests.crash.delivering_node import KINDS
from tests.crash.kill_points import AROUND_COMMITS, POINTS, RECEIVED
from tests.support.postgres import databases
from tests.support.receiver import Receiver, Request, check_lanes, first_deliveries

ROOT = Path(__file__).parents[2]
Stores = Callable[[], AbstractContextManager[str]]
SOAK = float(os.environ.get("CREWCAST_SOAK_SECONDS", "0"))


class Subscriber:
    """Counts. A replay is taken, but for a failure now and then; a run's own lanes are answered by their kind:

    `ordered` and `free` fail now and then, `bad` refuses every fourth event, `gone` wants nothing after the third.
    """

    def __init__(self, receiver: Receiver, dice: random.Random) -> None:
        self.requests = receiver.requests
        self.statuses: list[int] = []
        self.kill_at = 0  # requests from now
        self.kill = lambda: None
        self._dice = dice
        receiver.answer = self._answer

    def _answer(self, request: Request, n: int) -> int:
        self.kill_at -= 1
        if self.kill_at == 0:
            self.kill()
        self.statuses.append(self._status(request))
        return self.statuses[-1]

    def _status(self, request: Request) -> int:
        kind, channel = request.path.split("/")[1:]
        if "crewcast-replay" not in request.headers and channel == "step":
            if kind == "bad" and request.seq % 4 == 0:
                return 404
            if kind == "gone" and request.seq > 3:
                return 410
        return 500 if self._dice.random() < 0.04 else 204

    @property
    def answered(self) -> list[tuple[Request, int]]:
        return list(zip(self.requests, self.statuses, strict=True))


class Nodes:
    """One node after the other on the same store, and what they have acknowledged."""

    def __init__(self, place: str, url: str) -> None:
        self.place = place
        self.url = url
        self.events: list[str] = []
        self.replays: dict[str, int] = {}
        self.kills = 0

    def start(self, *death: str) -> "subprocess.Popen[str]":
        node = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.delivering_node", self.place, self.url, *death],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, args=(node,))
        self._reader.start()
        return node

    def _read(self, node: "subprocess.Popen[str]") -> None:
        assert node.stdout is not None
        for line in node.stdout:
            if not line.endswith("\n"):
                continue
            if line.startswith("evt_"):
                self.events.append(line.strip())
            elif line.startswith("again "):
                _, path, count = line.split()
                self.replays[path] = int(count)

    def ended(self, node: "subprocess.Popen[str]", within: float) -> int:
        try:
            return node.wait(within)
        finally:
            node.kill()
            node.wait()
            self._reader.join()
            assert node.stdin is not None
            assert node.stdout is not None
            node.stdin.close()
            node.stdout.close()

    def killed(self, node: "subprocess.Popen[str]", within: float) -> None:
        assert self.ended(node, within) == -signal.SIGKILL
        self.kills += 1

    def finish(self) -> None:
        node = self.start()
        assert node.stdin is not None
        node.stdin.write("finish\n")
        node.stdin.flush()
        assert self.ended(node, 100) == 0


def check(nodes: Nodes, subscriber: Subscriber) -> str:
    """All that is promised, of the whole story; what is to be told of it."""
    answered = subscriber.answered
    accepted = {one.event_id for one, status in answered if status < 300}
    assert [event for event in nodes.events if event not in accepted] == [], "lost"
    bodies: dict[str, bytes] = {}
    for one, _ in answered:
        assert bodies.setdefault(one.event_id, one.body) == one.body, "the same id, another body"
    kinds = {
        one.headers["crewcast-kickoff-id"]: kind for one, _ in answered if (kind := kind_of(one)) in KINDS
    }
    check_order(answered, kinds)
    for path, count in nodes.replays.items():
        got = {one.event_id for one, status in answered if one.path == path and status < 300}
        assert len(got) == count, f"a replay that was accepted sent {len(got)} of {count}"
    repeated, most = check_repetitions(answered, kinds)
    asyncio.run(check_store(nodes.place, answered))
    return (
        f"{nodes.kills} kills, {len(nodes.events)} events and {len(nodes.replays)} replays acknowledged, 0 lost; "
        f"{len(answered)} requests, {repeated} of them repetitions after a kill, at most {most} of a lane"
    )


def kind_of(request: Request) -> str:
    return request.path.split("/")[1].split("-")[0]


def check_order(answered: list[tuple[Request, int]], kinds: dict[str, str]) -> None:
    """First deliveries of a lane come in its order, and none before the one ahead of it was accepted."""
    live = [(one, status) for one, status in answered if kind_of(one) in KINDS]
    ordered = [one for one, _ in live if kind_of(one) != "free"]
    check_lanes([one for one in ordered if "crewcast-replay" not in one.headers])
    numbers: dict[tuple[str, str], list[int]] = defaultdict(list)
    for one in first_deliveries(ordered):
        numbers[one.headers["crewcast-kickoff-id"], one.path].append(int(one.headers["crewcast-lane-seq"]))
    for name, found in numbers.items():
        # Of what a closed lane did not send, some went to a replay's own path: not dense any more.
        assert found == sorted(found), name
    free: dict[tuple[str, str], set[int]] = defaultdict(set)
    for one, _ in live:
        if kind_of(one) == "free":
            free[one.headers["crewcast-kickoff-id"], one.path].add(int(one.headers["crewcast-lane-seq"]))
    for seen in free.values():
        assert seen == set(range(1, len(seen) + 1)), "a lane's numbers are not dense"
    taken: dict[tuple[str, str], int] = defaultdict(int)
    for one, status in answered:
        run, kind = one.headers["crewcast-kickoff-id"], kind_of(one)
        if kinds[run] == "free" or kind in {"bad", "gone"}:
            continue
        lane, number = (run, one.path), int(one.headers["crewcast-lane-seq"])
        if kind != "dead":  # whose numbers have the gaps that it fills
            assert number <= taken[lane] + 1, "sent before the one ahead of it was accepted"
        if status < 300:
            taken[lane] = max(taken[lane], number)


def check_repetitions(answered: list[tuple[Request, int]], kinds: dict[str, str]) -> tuple[int, int]:
    """An event that was accepted comes again only after a kill, and of a lane no more than one was in the air.

    How many there were, and the most of a lane.
    """
    by_node: dict[str, dict[tuple[str, str], list[str]]] = defaultdict(lambda: defaultdict(list))
    for one, status in answered:
        if status < 300:
            by_node[one.headers["x-node"]][one.headers["crewcast-kickoff-id"], one.path].append(one.event_id)
    seen: dict[tuple[str, str], set[str]] = defaultdict(set)
    total = most = 0
    for node, lanes in by_node.items():
        for (run, path), events in lanes.items():
            twice = [event for event, n in Counter(events).items() if n > 1]
            assert twice == [], f"more than once from node {node}"
            again = len(seen[run, path].intersection(events))
            assert again <= (WINDOW if kinds[run] == "free" else 1) + UNSETTLED
            seen[run, path].update(events)
            total += again
            most = max(most, again)
    return total, most


async def check_store(place: str, answered: list[tuple[Request, int]]) -> None:
    """What the store says was accepted was, every run has ended, and nothing waits or is a dead letter."""
    store = await open_store(Path(place), place if "://" in place else None)
    if isinstance(store, SQLiteStore):
        assert [*store._writes.connection.execute("PRAGMA integrity_check")] == [("ok",)]
    assert await store.running_runs() == []
    assert [row for row in await store.origins() if row.lanes] == []
    assert await store.undelivered() == []
    accepted = {(one.path, one.event_id) for one, status in answered if status < 300}
    for run_id in {one.headers["crewcast-kickoff-id"] for one, _ in answered}:
        run = await store.run(run_id)
        assert run is not None
        events = {event.seq: event.id for event in await store.events(run_id, limit=1000)}
        assert [*events] == [*range(1, run.seq + 1)]
        lanes = {lane.number: "/" + lane.url.split("/", 3)[3] for lane in await store.lanes(run_id)}
        for _, made in await store.attempts(run_id, limit=10_000):
            if made.verdict is Verdict.ACCEPTED:
                assert (lanes[made.lane], events[made.seq]) in accepted, "settled, and never accepted"
    await store.close()


@contextmanager
def new_folder(parent: Path) -> Iterator[str]:
    folder = parent / "node"
    yield str(folder)
    shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stores]:
    """Gives a new one for as long as the block lasts."""
    if request.param == "sqlite":
        yield lambda: new_folder(tmp_path)
        return
    with databases() as found:

        @contextmanager
        def new_database() -> Iterator[str]:
            place = asyncio.run(found.new())
            yield place
            asyncio.run(found.drop(place))

        yield new_database


@pytest.mark.timeout(240 + 2 * SOAK)
def test_no_kill_loses_an_event_or_its_order(store):
    dice = random.Random()

    def story(nodes: Nodes, subscriber: Subscriber, until: float) -> None:
        while time.monotonic() < until or nodes.kills < 3:
            node = nodes.start()
            wait_for_more(subscriber.requests)
            time.sleep(dice.uniform(0.05, 0.8))
            node.kill()
            nodes.killed(node, 60)

    told_over(store, dice, SOAK or 6, story)


@pytest.mark.timeout(240 + 2 * SOAK)
def test_each_point_between_append_and_settle_can_be_the_last(store, request):
    """Every point is the death of a node once, in the long form again and again until the time is over.

    The short form on PostgreSQL, which has the transactions, keeps to what is around their commits.
    """
    dice = random.Random()
    on_postgres = request.node.callspec.params["store"] == "postgres"
    points = AROUND_COMMITS if on_postgres and not SOAK else POINTS

    def story(nodes: Nodes, subscriber: Subscriber, until: float) -> None:
        for point in dice.sample(points, len(points)):
            passages = dice.randint(1, 30 if SOAK else 3)
            if point == RECEIVED:
                node = nodes.start()
                subscriber.kill, subscriber.kill_at = node.kill, passages
            else:
                node = nodes.start(point, str(passages))
            try:
                nodes.killed(node, 60)
            except subprocess.TimeoutExpired:
                pytest.fail(f"{point!r} was not passed {passages} times")
            subscriber.kill_at = 0

    assert told_over(store, dice, SOAK, story) >= len(points)


def told_over(
    store: Stores, dice: random.Random, seconds: float, story: Callable[[Nodes, Subscriber, float], None]
) -> int:
    """The story at least once, each time on a new store, since all that was sent is kept; the kills of all."""
    over = time.monotonic() + seconds
    kills = 0
    while not kills or time.monotonic() < over:
        with store() as place, Receiver() as receiver:
            subscriber, nodes = Subscriber(receiver, dice), Nodes(place, receiver.url)
            story(nodes, subscriber, min(over, time.monotonic() + 30))
            nodes.finish()
            print(check(nodes, subscriber))
        kills += nodes.kills
    return kills


def wait_for_more(requests: list[Request]) -> None:
    before, until = len(requests), time.monotonic() + 60
    while len(requests) == before:
        assert time.monotonic() < until
        time.sleep(0.01)
