"""What nodes that share a database do when one of them is stopped, restarted, or has a clock that is wrong.

One cluster for all of it: two APIs, two dispatchers and three workers, of which one alone has the project `late`.
Five of the seven have clocks that are wrong by minutes, all the time.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tests.cluster.cluster import LEASE, Cluster, surroundings
from tests.cluster.forge import TASKS, forge
from tests.support.mill import wait_until
from tests.support.server import ENDED

pytestmark = pytest.mark.timeout(240)  # the first one waits for seven processes to start

POLL = 1.0  # seconds after which a worker finds what no hint told it
MOST_WRONG = 60.0  # seconds that a time may be off: this machine is busy. The clocks are wrong by more


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    crews = [
        forge(folder),
        forge(folder, "desk", FORGE_ASKS="strike_task"),
        forge(folder, "stand", FORGE_ASKS="strike_task", FORGE_TWICE="1"),
    ]
    with surroundings(folder) as cluster:
        cluster.start("api-1", "api")
        cluster.start("api-2", "api", wrong_by=180)
        cluster.start("out-1", "dispatcher", wrong_by=-420)
        cluster.start("out-2", "dispatcher", wrong_by=300)
        cluster.start("work-1", "worker", *crews, wrong_by=600)
        cluster.start("work-2", "worker", *crews, wrong_by=-240)
        cluster.start("work-3", "worker", forge(folder, "late"), crews[0])
        yield cluster


@pytest.fixture
def cluster(whole: Cluster) -> Cluster:
    whole.heal()
    return whole


def attempts(log: list) -> list[int]:
    return [event["run_attempt"] for event in log]


def off(shown: str) -> float:
    """Seconds between a time that is told and this machine's clock."""
    return abs(datetime.fromisoformat(shown).astimezone(UTC).timestamp() - time.time())


@pytest.mark.parametrize("with_its_crews", [False, True])
def test_two_nodes_overlap_on_a_run_by_the_call_in_flight_and_no_more(cluster, with_its_crews):
    held = 1 if with_its_crews else 2
    run = cluster.kickoff(attempts=2, strike_task=["hold weigh"] * held)
    order = cluster.orders[run]
    loser = cluster.worker_of(run, "strike_task")
    if with_its_crews:
        # As when a machine is suspended.
        loser.stop()
    else:
        # Its crew still tells it of a step and of the call that it begins, before it is sure to be alone.
        loser.stop(whole=False)
        cluster.model.go(order)
    in_flight = cluster.model.wait_for(order, "strike_task", held, within=30)
    before = cluster.log(run)
    takeover = cluster.model.wait_for(order, "strike_task", held + 1, within=60)
    assert not loser.has(takeover.pid)
    if with_its_crews:
        loser.go_on()
        cluster.model.go(order)
    else:
        cluster.model.go(order)
        wait_until(lambda: not in_flight.alive)  # while nobody can tell it to
        loser.go_on()
    [log] = cluster.check([run])
    wait_until(lambda: not in_flight.alive)
    wait_until(lambda: "this node was away" in loser.text)
    assert [call for call in cluster.model.of(order) if call.pid == in_flight.pid][-1] is in_flight
    assert log[: len(before)] == before
    assert set(attempts(before)) == {1}
    assert set(attempts(log[len(before) :])) == {2}
    assert cluster.log(run) == log


def test_a_worker_that_goes_on_in_time_has_lost_nothing(cluster):
    run = cluster.kickoff(attempts=1, strike_task=["hold"])
    worker = cluster.worker_of(run, "strike_task")
    worker.stop()
    time.sleep(LEASE / 16)  # its crew waits half a lease for a word, and the last came within a quarter
    worker.go_on()
    cluster.model.go(cluster.orders[run])
    [log] = cluster.check([run])
    assert set(attempts(log)) == {1}
    calls = cluster.model.of(cluster.orders[run])
    assert [call.task for call in calls] == TASKS
    assert len({call.pid for call in calls}) == 1


def test_a_clock_that_is_wrong_by_minutes_changes_nothing(cluster):
    sent = len(cluster.subscriber.requests)
    runs: dict[str, str] = {}  # by the worker
    wrong = {node.name for node in cluster.of("worker") if node.wrong_by}
    every = []
    while not wrong <= set(runs):
        assert len(every) < 40, "one of them takes no runs"
        run = cluster.kickoff(attempts=1, strike_task=["hold"])
        every.append(run)
        runs[cluster.worker_of(run, "strike_task").name] = run
    # A lease that were taken by one of their clocks would be over at once, or not for minutes.
    time.sleep(LEASE + POLL)
    for run in every:
        cluster.model.go(cluster.orders[run])
    for log in cluster.check(every):
        assert set(attempts(log)) == {1}
        assert off(log[-1]["at"]) < 2 * LEASE + MOST_WRONG
        assert [event["at"] for event in log] == sorted(event["at"] for event in log)
    for run in every:
        assert [call.task for call in cluster.model.of(cluster.orders[run])] == TASKS
    late = cluster.subscriber.late[sent:]
    assert -MOST_WRONG < min(late) <= max(late) < MOST_WRONG
    assert cluster.subscriber.repeated(sent) == []
    for api in cluster.of("api"):
        for node in api.ask("GET", "/api/v1/nodes").json["nodes"]:
            assert node["state"] == "alive"
            assert off(node["seen_at"]) < LEASE + MOST_WRONG


def test_a_kickoff_waits_for_a_worker_that_has_its_crew(cluster):
    assert cluster.nodes["work-3"].terminate() == 0
    run, other = cluster.kickoff("late"), cluster.kickoff("forge")
    wait_until(lambda: all("waits_for" in api.status(run) for api in cluster.of("api")))
    assert cluster.status(run)["waits_for"] == "a worker that takes runs of late: none is there"
    cluster.check([other])
    assert cluster.status(run)["state"] == "PENDING"
    assert cluster.model.of(cluster.orders[run]) == []
    cluster.again("work-3").wait_until_listening()
    assert cluster.worker_of(run, "cool_task") is cluster.nodes["work-3"]
    [log] = cluster.check([run])
    assert set(attempts(log)) == {1}
    assert "waits_for" not in cluster.status(run)


@pytest.mark.parametrize("crew", ["desk", "stand"])
def test_a_review_is_decided_at_any_api_whichever_worker_has_the_run(cluster, crew):
    """Of `stand` no other process could go on: its own waits, and hears of the decision from another node."""
    runs = [cluster.kickoff(crew, attempts=1) for _ in cluster.of("api")]
    for run, api in zip(runs, cluster.of("api"), strict=True):
        cluster.wait_for(run, "PAUSED")
        body = {"execution_id": run, "task_id": "strike_task", "human_feedback": "", "is_approve": True}
        assert api.ask("POST", "/resume", body).status == 200
    for run, log in zip(runs, cluster.check(runs), strict=True):
        channels = Counter(event["channel"] for event in log)
        assert channels["human_input"] == 1
        tasks = [call.task for call in cluster.model.of(cluster.orders[run])]
        assert tasks == TASKS + TASKS[-1:] * (crew == "stand")


def test_a_stop_at_any_api_reaches_the_worker_by_a_hint(cluster):
    runs = [cluster.kickoff(heat_task=["hold"]) for _ in range(8)]
    calls = [cluster.model.wait_for(cluster.orders[run], "heat_task") for run in runs]
    workers = [next(node.name for node in cluster.of("worker") if node.has(call.pid)) for call in calls]
    took = []
    # By its worker: if that heard of it by a poll, the next one of the same worker would wait for a whole POLL.
    for _, run, call in sorted(zip(workers, runs, calls, strict=True), key=lambda one: one[0]):
        assert cluster.ask("POST", f"/stop/{run}").status == 202
        began = time.monotonic()
        wait_until(lambda call=call: not call.alive)
        took.append(time.monotonic() - began)
    assert sorted(took)[len(took) // 2] < POLL / 2, took
    cluster.check(runs, "REVOKED")


def test_a_rolling_restart_loses_nothing_and_does_nothing_twice(cluster):
    over, runs = threading.Event(), []

    def call() -> None:
        while not over.wait(0.4):
            runs.append(cluster.kickoff(attempts=1, heat_task=["weigh"]))

    since = len(cluster.subscriber.requests)
    caller = threading.Thread(target=call)
    caller.start()
    try:
        for name in ("api-1", "out-1", "work-1", "work-2", "out-2", "api-2"):
            assert cluster.nodes[name].terminate() == 0, cluster.nodes[name].text
            cluster.again(name).wait_until_listening()
            cluster.wait_until_ready(name)
    finally:
        over.set()
        caller.join()
    assert len(runs) > 10
    for run, log in zip(runs, cluster.check(runs), strict=True):
        assert set(attempts(log)) == {1}
        calls = cluster.model.of(cluster.orders[run])
        assert [call.task for call in calls] == ["heat_task", *TASKS]
    assert cluster.subscriber.repeated(since) == []


def test_runs_end_at_whatever_api_they_began(cluster):
    """The nodes are listed alike by both."""
    api_1, api_2 = cluster.of("api")
    names = [[one["name"] for one in api.ask("GET", "/api/v1/nodes").json["nodes"]] for api in (api_1, api_2)]
    assert names == [sorted(cluster.nodes)] * 2
    run = cluster.kickoff()
    assert cluster.wait_for(run, *ENDED)["state"] == "SUCCESS"
    assert api_1.status(run) == api_2.status(run)
    assert api_1.events(run) == api_2.events(run)
