"""Several projects in one server: each by its name, and one that cannot be loaded beside those that can."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.receiver import Receiver, check_lanes
from tests.support.server import CLASSIC, TOKEN, ServerProcess

PROJECTS = Path(__file__).parents[1] / "projects"
NAMES = ["broken", "empty", "jobs", "market_brief"]


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """market_brief, odd jobs under another name, one that raises when it is imported, one that is no project."""
    empty = tmp_path_factory.mktemp("folder") / "empty"
    empty.mkdir()
    projects = [CLASSIC, f"jobs={PROJECTS / 'odd'}", PROJECTS / "broken", empty]
    flags = ("--stub-llm", "--stub-delay", "0")
    with ServerProcess(projects, tmp_path_factory.mktemp("data"), *flags) as server:
        assert server.ask("GET", "/crews/jobs/inputs", timeout=60).status == 200
        assert server.ask("GET", "/crews/market_brief/inputs", timeout=60).status == 200
        assert server.ask("GET", "/crews/broken/inputs", timeout=60).status == 500
        yield server


def test_the_crews_are_listed_with_what_they_take_and_why_they_do_not_load(many):
    told = many.ask("GET", "/crews").json
    assert told["default"] is None
    crews = {crew.pop("name"): crew for crew in told["crews"]}
    assert sorted(crews) == NAMES
    assert crews["market_brief"] == {
        "kind": "classic",
        "state": "ready",
        "inputs": ["audience", "topic"],
        "required": ["audience", "topic"],
        "tasks": ["research_task", "sizing_task", "brief_task"],
    }
    assert (crews["broken"]["state"], crews["broken"]["kind"]) == ("not loadable", "classic")
    assert "src/broken/crew.py" in crews["broken"]["error"]
    assert (crews["empty"]["state"], crews["empty"]["kind"]) == ("not loadable", "unknown")
    assert "no CrewAI project that Crewcast knows" in crews["empty"]["error"]


def test_each_runs_under_its_own_path(many):
    with Receiver() as receiver:
        ids = {
            name: many.kickoff(inputs, at=f"/crews/{name}", **receiver.urls(f"/{name}"))
            for name, inputs in (
                ("market_brief", {"topic": "tea", "audience": "all"}),
                ("jobs", {"topic": "tea"}),
            )
        }
        for name, kickoff_id in ids.items():
            status = many.wait_for(kickoff_id, at=f"/crews/{name}")
            assert (status["state"], status["crew"]) == ("SUCCESS", name)
            # The bare path knows every run, another crew's path only its own.
            assert many.status(kickoff_id) == status
            other = next(crew for crew in ids if crew != name)
            assert many.ask("GET", f"/crews/{other}/status/{kickoff_id}").status == 404
        requests = receiver.wait_for_crew_events(2)
    check_lanes(requests)
    for name, kickoff_id in ids.items():
        own = [one for one in requests if one.path.startswith(f"/{name}/")]
        assert {one.headers["crewcast-kickoff-id"] for one in own} == {kickoff_id}
        assert own[-1].headers["crewcast-event"] == "crew.completed"


def test_a_run_of_one_that_does_not_load_fails_with_its_error(many):
    for name, said in (("broken", "src/broken/crew.py"), ("empty", "no CrewAI project that Crewcast knows")):
        kickoff_id = many.kickoff({}, at=f"/crews/{name}")
        status = many.wait_for(kickoff_id)
        assert status["state"] == "FAILED"
        assert status["error"].startswith("the project did not load: ")
        assert said in status["error"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/crews/nobody/inputs"),
        ("POST", "/crews/nobody/kickoff"),
        ("GET", "/crews/nobody/status/x"),
        ("GET", "/inputs"),
        ("POST", "/kickoff"),
    ],
)
def test_a_crew_that_is_not_there_or_not_said_is_404_with_the_names(many, method, path):
    answer = many.ask(method, path, {"inputs": {}} if method == "POST" else None)
    assert (answer.status, answer.json["error"]) == (404, "Crew not found")
    assert answer.json["details"] == {"crews": NAMES}
    assert "market_brief" in answer.json["message"]


def test_the_same_key_and_body_for_another_crew_start_another_run(many):
    body = {"inputs": {"topic": "tea", "audience": "all"}}
    first = many.ask("POST", "/crews/jobs/kickoff", body, idempotency_key="k")
    assert first.status == 200
    again = many.ask("POST", "/crews/jobs/kickoff", body, idempotency_key="k")
    assert again.json["kickoff_id"] == first.json["kickoff_id"]
    assert many.ask("POST", "/crews/market_brief/kickoff", body, idempotency_key="k").status == 422


def test_the_command_line_lists_and_chooses(many):
    def crewcast(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "crewcast", *arguments, "--url", many.url, "--token", TOKEN]
        return subprocess.run(command, capture_output=True, text=True)

    listed = crewcast("crews")
    assert listed.returncode == 1, "one cannot be loaded"
    rows = [line.split(maxsplit=1)[0] for line in listed.stdout.splitlines()]
    assert sorted(rows) == NAMES
    assert "inputs: audience, topic" in listed.stdout
    chosen = crewcast("kickoff", "--crew", "jobs", "--watch", "topic=tea")
    assert chosen.returncode == 0, chosen.stderr
    assert "second_task" in chosen.stdout
    unsaid = crewcast("kickoff", "topic=tea")
    assert unsaid.returncode == 2
    assert "This server has several crews: broken, empty, jobs, market_brief" in unsaid.stderr


def test_the_start_says_what_cannot_be_served(many):
    many.wait_until_said("4 crews are served at")
    many.wait_until_said("crew empty cannot be loaded")
    many.wait_until_said("crew broken cannot be loaded")


def test_a_default_crew_answers_the_bare_paths(tmp_path):
    projects = [CLASSIC, PROJECTS / "odd"]
    flags = ("--stub-llm", "--stub-delay", "0", "--default-crew", "odd-jobs")
    with ServerProcess(projects, tmp_path, *flags) as server:
        assert server.ask("GET", "/crews").json["default"] == "odd-jobs"
        assert server.ask("GET", "/inputs", timeout=60).json == {"inputs": ["topic"]}
        assert server.wait_for(server.kickoff({"topic": "tea"}))["crew"] == "odd-jobs"
        assert server.ask("GET", "/crews/market_brief/inputs").json == {"inputs": ["audience", "topic"]}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([CLASSIC, CLASSIC], "are both called market_brief: give one another name"),
        (["/nowhere", "/neither"], "/nowhere is not a folder"),
        ([CLASSIC, "--default-crew", "other"], "default_crew: other is not served; there are: market_brief"),
    ],
)
def test_what_cannot_be_served_together_ends_at_the_start(tmp_path, arguments, said):
    command = [
        sys.executable,
        "-m",
        "crewcast",
        "dev",
        *map(str, arguments),
        "--port",
        "0",
        "--data-dir",
        tmp_path,
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert said in ended.stderr
