"""Every example, as it is, with the offline LLM: alone in a server and all together in one."""

from pathlib import Path

import pytest

from tests.support.receiver import Receiver, check_lanes, first_deliveries
from tests.support.server import REPOSITORY, ServerProcess

EXAMPLES = sorted(file.parent for file in (REPOSITORY / "examples").glob("*/pyproject.toml"))
FLAGS = ("--stub-llm", "--stub-delay", "0")


def names(folders: list[Path]) -> list[str]:
    return [folder.name for folder in folders]


def run(server: ServerProcess, crews: dict[str, Path]) -> None:
    """One run of each crew at once (by its path), told on all three channels."""
    with Receiver() as receiver:
        ids = {}
        for path in crews:
            needed = server.ask("GET", f"{path}/inputs", timeout=90).json["inputs"]
            inputs = dict.fromkeys(needed, "green tea")
            ids[path] = server.kickoff(inputs, at=path, **receiver.urls(path))
        statuses = {path: server.wait_for(kickoff_id, 90, at=path) for path, kickoff_id in ids.items()}
        logs = {path: server.events(kickoff_id) for path, kickoff_id in ids.items()}
        receiver.wait(lambda all_: len({one.event_id for one in all_}) == sum(map(len, logs.values())))
    check_lanes(receiver.requests)
    for path, folder in crews.items():
        status = statuses[path]
        assert status["state"] == "SUCCESS", (folder.name, status)
        told = [one for one in first_deliveries(receiver.requests) if one.path.startswith(f"{path}/")]
        kinds = [one.headers["crewcast-event"] for one in sorted(told, key=lambda one: one.seq)]
        assert kinds.count("crew.completed") == 1
        assert kinds[-1] == "crew.completed"
        assert kinds.count("task.completed") == len(status["result"]["tasks"]) >= 2
        steps = [event["payload"]["step"] for event in logs[path] if event["type"] == "step"]
        assert {"thought", "tool_call", "tool_result"} <= {step["type"] for step in steps}, folder.name
        assert status["result"]["output"]


def test_each_kind_of_project_has_an_example():
    assert names(EXAMPLES) == ["classic", "declarative-flow", "flow", "json"]


@pytest.mark.parametrize("folder", EXAMPLES, ids=names(EXAMPLES))
def test_alone(tmp_path, folder):
    with ServerProcess(folder, tmp_path, *FLAGS) as server:
        run(server, {"": folder})


def test_together(tmp_path):
    with ServerProcess(EXAMPLES, tmp_path, *FLAGS) as server:
        listed = server.ask("GET", "/crews").json["crews"]
        crews = {f"/crews/{crew['name']}": folder for crew, folder in zip(listed, EXAMPLES, strict=True)}
        run(server, crews)
        kinds = {crew["name"]: crew["kind"] for crew in server.ask("GET", "/crews").json["crews"]}
        assert sorted(kinds.values()) == ["classic", "declarative-flow", "flow", "json"]
