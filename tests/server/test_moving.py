"""A server that was killed at work is moved from SQLite to PostgreSQL, as docs/operating.md says it."""

import os
import subprocess
import sys

import pytest

from tests.support.mill import TASKS, Sack, desk, wait_until
from tests.support.postgres import running
from tests.support.receiver import Receiver, check_lanes, first_deliveries
from tests.support.server import ServerProcess

DESK, MILL = "/crews/desk", "/crews/mill"


def crewcast(*arguments: object, **environ: str) -> str:
    command = [sys.executable, "-m", "crewcast", *map(str, arguments)]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("CREWCAST_")}
    done = subprocess.run(command, capture_output=True, text=True, env=variables | environ)
    assert done.returncode == 0, done
    return done.stdout


@pytest.mark.timeout(180)
def test_what_a_server_had_goes_on_over_postgresql(tmp_path):
    data = tmp_path / "data"
    crews = [desk(tmp_path), desk(tmp_path, "", "mill")]
    done, asks, cut = (Sack(tmp_path / name) for name in ("done", "asks", "cut"))
    cut.follow(grind_task=["wait"])
    with running() as postgres, Receiver() as receiver:
        origin = ("--origin", receiver.url)
        with ServerProcess(crews, data) as server:
            for at in (DESK, MILL):
                assert server.ask("GET", f"{at}/inputs", timeout=60).status == 200
            first = server.kickoff(done.inputs, at=MILL, **receiver.urls())
            assert server.wait_for(first)["state"] == "SUCCESS"
            second = server.kickoff(asks.inputs, at=DESK, **receiver.urls())
            wait_until(lambda: server.status(second).get("awaiting"))
            third = server.kickoff(cut.inputs, at=MILL, **receiver.urls())
            cut.wait_for("grind_task")
            before = server.events(first)
            server.kill()
        secret = crewcast("secret", "show", *origin, "--data-dir", data)

        url = postgres.url()
        assert "is in PostgreSQL at" in crewcast("migrate", "--from", f"sqlite:{data}", "--to", url)
        assert "nothing to do" in crewcast("migrate", CREWCAST_DATABASE_URL=url)
        key = {"CREWCAST_DATABASE_URL": url, "CREWCAST_KEY_FILE": str(data / "secret.key")}
        assert crewcast("secret", "show", *origin, **key) == secret

        cut.go()
        with ServerProcess(crews, tmp_path / "node", **key) as node:
            assert node.events(first) == before
            assert node.wait_for(third)["state"] == "SUCCESS"
            assert node.status(second)["awaiting"]["review"] == 1
            answer = {
                "execution_id": second,
                "task_id": "grind_task",
                "human_feedback": "",
                "is_approve": True,
            }
            assert node.ask("POST", "/resume", answer).status == 200
            assert node.wait_for(second)["state"] == "SUCCESS"
            assert cut.callbacks == asks.callbacks == done.callbacks == TASKS
            assert cut.counts["clean_task"] == 1  # it went on from its last finished task
            events = [event for run in (first, second, third) for event in node.events(run)]
            # Nobody was named for questions to a person.
            due = len([event for event in events if event["channel"] in ("task", "step", "crew")])
            check_lanes(
                first_deliveries(receiver.wait(lambda got: len({one.event_id for one in got}) == due))
            )
            status = node.status(third)
            assert node.terminate() == 0
    assert status["state"] == "SUCCESS"
