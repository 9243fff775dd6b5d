"""Every example, as it is, with the offline LLM: alone in a server and all together in one."""

import pytest

from tests.support.examples import ALL, Example
from tests.support.receiver import Receiver, check_lanes, first_deliveries
from tests.support.server import ServerProcess

FLAGS = ("--stub-llm", "--stub-delay", "0")


# What the crews of each do, in this order. A flow's own methods are tasks besides.
TASKS = {
    "classic": ["research_task", "sizing_task", "brief_task"],
    "declarative-flow": ["sessions_task", "timetable_task", "draft_task", "proofread_task"],
    "flow": ["lookup_task", "triage_task", "policy_task", "brief_task"],
    "json": ["menu_task", "order_task", "kitchen_page_task"],
    "reviews": ["facts_task", "notice_task", "announcement_task"],
}


def approve(server: ServerProcess, path: str, kickoff_id: str) -> None:
    task = server.wait_for(kickoff_id, 90, at=path, state="PAUSED")["awaiting"]["task_id"]
    decision = {"execution_id": kickoff_id, "task_id": task, "human_feedback": "", "is_approve": True}
    assert server.ask("POST", f"{path}/resume", decision).status == 200


def run(server: ServerProcess, crews: dict[str, Example]) -> None:
    """One run of each crew at once (by its path) with the inputs of its README, told on all three channels."""
    with Receiver() as receiver:
        ids = {}
        for path, example in crews.items():
            needed = server.ask("GET", f"{path}/inputs", timeout=90)
            assert needed.status == 200, needed.body
            ids[path] = server.kickoff(example.inputs, at=path, **receiver.urls(path))
        for path, example in crews.items():
            if example.name == "reviews":
                approve(server, path, ids[path])
        statuses = {path: server.wait_for(kickoff_id, 90, at=path) for path, kickoff_id in ids.items()}
        # Nobody is told of the question by a webhook here.
        logs = {
            path: [event for event in server.events(kickoff_id) if event["channel"] != "human_input"]
            for path, kickoff_id in ids.items()
        }
        receiver.wait(lambda all_: len({one.event_id for one in all_}) == sum(map(len, logs.values())))
    check_lanes(receiver.requests)
    for path, example in crews.items():
        status = statuses[path]
        assert status["state"] == "SUCCESS", (example.name, status)
        told = [one for one in first_deliveries(receiver.requests) if one.path.startswith(f"{path}/")]
        kinds = [one.headers["crewcast-event"] for one in sorted(told, key=lambda one: one.seq)]
        assert kinds.count("crew.completed") == 1
        assert kinds[-1] == "crew.completed"
        tasks = [task["task_id"] for task in status["result"]["tasks"]]
        assert kinds.count("task.completed") == len(tasks)
        assert [task for task in tasks if task in TASKS[example.name]] == TASKS[example.name]
        steps = [event["payload"]["step"] for event in logs[path] if event["type"] == "step"]
        wanted = {"thought"} if example.name == "reviews" else {"thought", "tool_call", "tool_result"}
        assert wanted <= {step["type"] for step in steps}, example.name
        assert status["result"]["output"]


@pytest.mark.parametrize("example", ALL, ids=lambda example: example.name)
def test_alone(tmp_path, example):
    with ServerProcess(example.root, tmp_path, *FLAGS) as server:
        run(server, {"": example})


def test_together(tmp_path):
    with ServerProcess([example.root for example in ALL], tmp_path, *FLAGS) as server:
        listed = server.ask("GET", "/crews").json["crews"]
        crews = {f"/crews/{crew['name']}": example for crew, example in zip(listed, ALL, strict=True)}
        run(server, crews)
        kinds = {crew["name"]: crew["kind"] for crew in server.ask("GET", "/crews").json["crews"]}
        assert sorted(kinds.values()) == ["classic", "declarative-flow", "flow", "json", "json"]
