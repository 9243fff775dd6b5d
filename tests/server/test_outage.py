"""A node whose PostgreSQL stops for a while: nothing is lost, and its log tells of it twice."""

import http.client
import re
import threading
import time
from urllib.parse import urlsplit

import pytest

from tests.support.mill import MILL, TASKS, Sack, wait_until
from tests.support.postgres import running
from tests.support.receiver import Receiver, check_lanes, first_deliveries
from tests.support.server import TOKEN, ServerProcess

PASSWORD = "hunter2-3c1f"
LINE = re.compile(r"\d\d:\d\d:\d\d (\w+) +([\w.]+): (.*)")


@pytest.fixture(scope="module")
def postgres():
    with running() as server:
        yield server


class Watcher:
    """Reads a run's event stream to its end."""

    def __init__(self, server: ServerProcess, kickoff_id: str) -> None:
        at = urlsplit(server.url)
        self._http = http.client.HTTPConnection(at.hostname or "", at.port, timeout=60)
        headers = {"authorization": f"Bearer {TOKEN}", "accept": "text/event-stream"}
        self._http.request("GET", f"/api/v1/runs/{kickoff_id}/events", headers=headers)
        self.seqs: list[int] = []
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        for line in self._http.getresponse():
            if line.startswith(b"id: "):
                self.seqs.append(int(line[4:]))
        self._http.close()


@pytest.mark.timeout(180)
def test_an_outage_of_the_database_is_two_lines_of_the_log(postgres, tmp_path):
    url = postgres.url().replace("postgres@", f"postgres:{PASSWORD}@")
    one, two = Sack(tmp_path / "one", grind_task=["wait"]), Sack(tmp_path / "two")
    with (
        Receiver() as receiver,
        ServerProcess([MILL], tmp_path / "data", "--database-url", url, "--log-level", "info") as server,
    ):
        server.wait_until_ready()
        server.wait_until_said("crew mill is ready")
        urls = receiver.urls()
        first = server.kickoff(one.inputs, **urls)
        one.wait_for("grind_task")
        watcher = Watcher(server, first)
        wait_until(lambda: watcher.seqs)
        before = len(server.output)

        postgres.stop()
        until = time.monotonic() + 4
        one.go()  # the run goes on, and has something to store
        answers = set()
        while time.monotonic() < until:
            answers.add(server.ask("POST", "/kickoff", {"inputs": two.inputs}).status)
            answers.add(server.ask("GET", f"/status/{first}").status)
            time.sleep(0.1)
        assert answers == {503}
        postgres.start()

        assert server.wait_for(first)["state"] == "SUCCESS"
        second = server.kickoff(two.inputs, **urls)
        assert server.wait_for(second)["state"] == "SUCCESS"
        assert one.callbacks == two.callbacks == TASKS
        log = server.events(first)
        watcher.thread.join(60)
        assert watcher.seqs == [event["seq"] for event in log]
        due = len(log) + len(server.events(second))
        check_lanes(first_deliveries(receiver.wait(lambda got: len({one.event_id for one in got}) == due)))
        wait_until(lambda: "answers again" in server.text)
        time.sleep(1.5)  # whatever polls has polled once more
        said = server.output[before:]
    lines = [found for line in said if (found := LINE.match(line))]
    assert len(lines) == len(said), said  # no traceback
    told = [line.groups() for line in lines]
    assert [(level, name) for level, name, _ in told] == [
        ("ERROR", "crewcast.store"),
        ("WARNING", "crewcast.store"),
    ], said
    assert " does not answer: " in told[0][2]
    assert told[1][2].endswith(f"127.0.0.1:{postgres.port}/postgres answers again: what waited goes on")
    assert PASSWORD not in server.text
