"""A disk that is full for a while under a real server: told in a line, nothing acknowledged lost, no restart needed.

The limit on file sizes stands for the full disk, for the server and for the crews that it runs.
"""

import resource

import pytest

from tests.crash.test_server_kill import ODD
from tests.support.mill import wait_until
from tests.support.processes import alive, descendants
from tests.support.receiver import Receiver, check_lanes
from tests.support.server import ServerProcess

FLAGS = ("--stub-llm", "--stub-delay", "0", "--retry-schedule", "0.1", "--log-level", "debug")
NO_LIMIT = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
pytestmark = pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="Linux limits another process")


def limit_files(pids: list[int], size: int | None) -> None:
    for pid in filter(alive, pids):
        resource.prlimit(
            pid, resource.RLIMIT_FSIZE, NO_LIMIT if size is None else (size, resource.RLIM_INFINITY)
        )


def loud(server: ServerProcess) -> list[str]:
    return [line for line in server.text.splitlines() if " ERROR " in line or " WARNING " in line]


def test_a_full_disk_is_said_once_and_survived(tmp_path):
    data, go_on = tmp_path / "data", tmp_path / "go-on"
    with Receiver() as receiver, ServerProcess(ODD, data, *FLAGS) as server:
        server.wait_until_ready()
        chatter = {"topic": "tea", "act": "chatter", "argument": str(go_on)}
        running = [server.kickoff(chatter, **receiver.urls(f"/{n}")) for n in range(3)]
        logs = [data / "logs" / f"{run}.log" for run in running]
        wait_until(lambda: all(server.events(run) for run in running))
        wait_until(lambda: all(log.stat().st_size for log in logs))
        before = {run: server.events(run) for run in running}
        # The database first, then the crews' logs, which are still small.
        pids = descendants(server.process.pid)
        limit_files([server.process.pid], (data / "crewcast.db-wal").stat().st_size)
        full = max(log.stat().st_size for log in logs) + 2000
        limit_files(pids, full)

        refused = server.ask("POST", "/kickoff", {"inputs": {"topic": "x"}}, idempotency_key="k")
        assert (refused.status, refused.headers["retry-after"]) == (503, "5")
        assert "cannot grow" in refused.json["message"]
        assert "Make room; no restart is needed" in refused.json["message"]
        wait_until(lambda: all(log.stat().st_size == full for log in logs))
        go_on.touch()
        wait_until(
            lambda: all(
                server.text.count(f"run {run} waits: its events cannot be stored") > 2 for run in running
            )
        )
        assert server.ask("POST", "/kickoff", {"inputs": {"topic": "x"}}, idempotency_key="k").status == 503
        assert {run: server.events(run) for run in running} == before
        assert {server.status(run)["state"] for run in running} == {"STARTED"}
        [said] = loud(server)
        assert "crewcast.store" in said
        assert "Make room; no restart is needed" in said

        limit_files([server.process.pid, *pids], None)
        for run in running:
            assert server.wait_for(run)["state"] == "SUCCESS"
            log = server.events(run)
            assert log[: len(before[run])] == before[run]
            assert [event["type"] for event in log].count("crew.completed") == 1
        accepted = server.ask("POST", "/kickoff", {"inputs": {"topic": "x"}}, idempotency_key="k")
        assert (accepted.status, "idempotency-replayed" in accepted.headers) == (200, False)
        assert server.wait_for(accepted.json["kickoff_id"])["state"] == "SUCCESS"
        stored = {event["id"] for run in running for event in server.events(run)}
        receiver.wait(lambda got: {one.event_id for one in got} == stored)
        check_lanes(receiver.requests)
        server.wait_until_said("can be written again")
        assert len(loud(server)) == 2
        assert "can be written again" in loud(server)[1]


def test_outcomes_that_a_full_disk_did_not_take_are_delivered_again(tmp_path):
    """The subscriber has had the events and the disk does not know: it gets them again, in order, with their ids."""
    data, go_on = tmp_path / "data", tmp_path / "go-on"

    def answer(request, n):
        """The first request is answered once the disk is full."""
        if n == 1:
            limit_files([server.process.pid], (data / "crewcast.db-wal").stat().st_size)
        return 204

    with Receiver(answer) as receiver, ServerProcess(ODD, data, *FLAGS) as server:
        server.wait_until_ready()
        run = server.kickoff({"topic": "tea", "act": "wait", "argument": str(go_on)}, **receiver.urls())
        wait_until(lambda: f"lane 1 of run {run}: " in server.text or f"lane 2 of run {run}: " in server.text)
        go_on.touch()
        wait_until(lambda: server.text.count(f"run {run} waits: its events cannot be stored") > 2)
        assert len(receiver.requests) == 1, "what cannot be recorded is sent again and again"
        limit_files([server.process.pid], None)
        assert server.wait_for(run)["state"] == "SUCCESS"
        log = server.events(run)
        requests = receiver.wait(lambda got: {one.event_id for one in got} == {event["id"] for event in log})
        check_lanes(requests)
        first = requests[0]
        again = [one for one in requests[1:] if one.event_id == first.event_id]
        assert len(again) == 1
        assert again[0].body == first.body
        assert server.ask("GET", "/api/v1/undelivered").json["dead_letters"] == []
        server.wait_until_said("can be written again")
        assert len(loud(server)) == 2
