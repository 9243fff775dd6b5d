"""What becomes of runs whose process, or whose server, dies, hangs, or uses more than it may."""

import os
import signal
import time

import pytest

from tests.support.mill import MILL, TASKS, Sack, desk
from tests.support.receiver import Receiver, check_lanes, first_deliveries
from tests.support.server import ServerProcess

SETTINGS = """
max_runs = 5
max_runs_per_token = 4

[crews.watched]
stall_timeout = 6

[crews.brief]
run_timeout = 4
max_attempts = 1

[crews.narrow]
max_runs = 1
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Crews under four names: `mill` as the server is set, `brief` with a timeout, `narrow` one at a time, and `watched`,
    which has to say something.
    """
    folder = tmp_path_factory.mktemp("survival")
    settings = folder / "crewcast.toml"
    settings.write_text(SETTINGS)
    crews = [MILL, *(desk(folder, "", name) for name in ("brief", "narrow", "watched"))]
    with ServerProcess(crews, folder / "data", "--config", str(settings)) as process:
        for name in ("mill", "brief", "narrow", "watched"):
            assert process.ask("GET", f"/crews/{name}/inputs", timeout=60).status == 200
        yield process


@pytest.fixture
def sack(tmp_path):
    """A run's folder with a script."""
    return lambda name="sack", **script: Sack(tmp_path / name, **script)


def start(server, sack, crew="mill", **fields):
    return server.kickoff(sack.inputs, at=f"/crews/{crew}", **fields)


def ends(log):
    return [event for event in log if event["channel"] == "crew"]


def done(event):
    """The tasks that a crew event tells of."""
    return [task["task_id"] for task in event["payload"].get("result", {}).get("tasks", [])]


def test_a_killed_child_goes_on_from_its_last_finished_task(server, sack):
    one = sack(grind_task=["wait"])
    with Receiver() as receiver:
        kickoff_id = start(server, one, **receiver.urls())
        one.wait_for("grind_task")
        os.kill(one.worker, signal.SIGKILL)
        status = server.wait_for(kickoff_id)
        assert status["state"] == "SUCCESS"
        assert [task["task_id"] for task in status["result"]["tasks"]] == TASKS
        assert status["progress"] == {"completed_tasks": 3, "total_tasks": 3}
        # The task that was cut is the only one that is begun again.
        assert one.counts == {"clean_task": 1, "grind_task": 2, "pack_task": 1}
        assert one.callbacks == TASKS
        log = server.events(kickoff_id)
        told = [
            (event["payload"]["task_id"], event["run_attempt"]) for event in log if event["channel"] == "task"
        ]
        assert told == [("clean_task", 1), ("grind_task", 2), ("pack_task", 2)]
        assert [done(event) for event in ends(log)] == [TASKS]
        got = first_deliveries(receiver.wait(lambda got: len({one.event_id for one in got}) == len(log)))
        check_lanes(got)
        heard = {one.event_id: int(one.headers["crewcast-run-attempt"]) for one in got}
        assert heard == {event["id"]: event["run_attempt"] for event in log}


@pytest.mark.parametrize(
    ("act", "how"),
    [
        ("exit", "the crew's process ended by itself (exit status 3)"),
        ("segfault", "the crew's process was killed (SIGSEGV)"),
        ("kill", "the crew's process was killed (SIGKILL; often the sign of too little memory)"),
    ],
)
def test_a_run_that_dies_as_often_as_it_may_fails_with_what_it_had_finished(server, sack, act, how):
    one = sack(grind_task=[act, act, "say"])
    kickoff_id = start(server, one)
    status = server.wait_for(kickoff_id)
    assert (status["state"], status["error"]) == ("FAILED", f"{how} (attempt 2 of 2)")
    assert one.counts == {"clean_task": 1, "grind_task": 2}
    [end] = ends(server.events(kickoff_id))
    assert (end["type"], done(end), end["run_attempt"]) == ("crew.error", ["clean_task"], 2)


def test_a_kickoff_may_allow_more_attempts(server, sack):
    one = sack(grind_task=["exit", "kill"], pack_task=["segfault"])
    kickoff_id = start(server, one, max_attempts=4)
    assert server.wait_for(kickoff_id)["state"] == "SUCCESS"
    assert one.counts == {"clean_task": 1, "grind_task": 3, "pack_task": 2}
    assert ends(server.events(kickoff_id))[0]["run_attempt"] == 4


def test_of_one_attempt_a_crash_is_the_end(server, sack):
    one = sack(grind_task=["exit"])
    status = server.wait_for(start(server, one, max_attempts=1))
    assert status["error"] == "the crew's process ended by itself (exit status 3)"
    assert one.counts == {"clean_task": 1, "grind_task": 1}


def test_out_of_memory_ends_clearly(server, sack):
    """CrewAI retries a model that fails; Python says what was the matter, also where a thread could not begin: of several
    runs, some meet that.
    """
    ids = [start(server, sack(f"sack{n}", grind_task=["memory"] * 9)) for n in range(3)]
    for kickoff_id in ids:
        status = server.wait_for(kickoff_id)
        assert status["state"] == "FAILED"
        said = status["error"] + status.get("traceback", "")
        assert "MemoryError" in said or "can't start new thread" in said


def test_a_child_that_says_nothing_for_too_long_counts_as_cut(server, sack):
    one = sack(grind_task=["freeze", "say"])
    kickoff_id = start(server, one, "watched")
    assert server.wait_for(kickoff_id)["state"] == "SUCCESS"
    assert one.counts == {"clean_task": 1, "grind_task": 2, "pack_task": 1}
    two = sack("two", grind_task=["freeze"])
    status = server.wait_for(start(server, two, "watched", max_attempts=1))
    assert status["error"] == "the crew said nothing for 6 s and was ended"


def test_a_run_that_works_longer_than_its_crew_may_fails(server, sack):
    one = sack(grind_task=["wait"])
    kickoff_id = start(server, one, "brief")
    status = server.wait_for(kickoff_id)
    assert status["error"] == "the run worked longer than it may (4 s) and was ended"
    assert [done(end) for end in ends(server.events(kickoff_id))] == [["clean_task"]]


def test_a_kickoff_may_give_its_run_another_timeout(server, sack):
    long = start(server, sack("long", grind_task=[sack("other").weigh(4.5)]), "brief", timeout=60)
    short = start(server, sack("short", grind_task=["wait"]), timeout=0.7)
    assert server.wait_for(short)["error"] == "the run worked longer than it may (0.7 s) and was ended"
    assert server.wait_for(long)["state"] == "SUCCESS"


def test_the_time_of_a_run_is_that_of_all_its_processes(server, sack):
    one = sack(clean_task=["wait", "wait"])
    kickoff_id = start(server, one, timeout=8)
    one.wait_for("clean_task")
    time.sleep(4)
    os.kill(one.worker, signal.SIGKILL)
    status = server.wait_for(kickoff_id)
    assert status["error"] == "the run worked longer than it may (8 s) and was ended"
    assert 8 <= status["execution_time"] < 12
    assert ends(server.events(kickoff_id))[0]["run_attempt"] == 2


@pytest.mark.parametrize(
    ("limits", "calls", "finished"),
    [
        # Each call takes ten tokens, and each task one call. The third call is not made; the tokens of the
        # second are known once it is made, and its task comes to nothing.
        ({"llm_calls": 2}, 2, ["clean_task", "grind_task"]),
        ({"tokens": 15}, 2, ["clean_task"]),
        ({"seconds": 4}, 2, ["clean_task"]),
    ],
)
def test_a_budget_ends_the_run_with_its_partial_result(server, sack, limits, calls, finished):
    one = sack(grind_task=["wait"] if "seconds" in limits else [])
    kickoff_id = start(server, one, limits=limits)
    status = server.wait_for(kickoff_id)
    assert status["state"] == "FAILED"
    assert len(one.calls) == calls
    [end] = ends(server.events(kickoff_id))
    assert (end["type"], done(end)) == ("crew.error", finished)
    assert end["payload"]["error"] == status["error"]
    if "seconds" not in limits:
        assert status["error"].startswith("the run has used what it may: ")


def test_a_budget_of_tool_calls_ends_the_run_before_one_more(server, sack):
    one = sack()
    one.follow(grind_task=[one.weigh(0), one.weigh(0.01)])
    kickoff_id = start(server, one, limits={"tool_calls": 1})
    status = server.wait_for(kickoff_id)
    assert status["error"].startswith("the run has used what it may: ")
    assert len([effect for effect in one.noted("effects") if "began" in effect]) == 1


def test_a_budget_counts_what_the_processes_before_have_spent(server, sack):
    """Up to the last event: the call during which the process died had told nothing yet."""
    one = sack(grind_task=["kill"])
    kickoff_id = start(server, one, limits={"llm_calls": 2})
    assert server.wait_for(kickoff_id)["state"] == "FAILED"
    assert one.counts == {"clean_task": 1, "grind_task": 2}
    assert done(ends(server.events(kickoff_id))[0]) == ["clean_task", "grind_task"]


def test_a_crew_runs_as_often_at_once_as_it_may_and_by_priority_then_age(server, sack):
    holding = sack("holding", clean_task=["wait"])
    first = start(server, holding, "narrow")
    holding.wait_for("clean_task")
    waiting = {
        name: (sack(name), priority) for name, priority in (("a", 0), ("b", 5), ("c", 0), ("d", -1), ("e", 5))
    }
    ids = {name: start(server, one, "narrow", priority=rank) for name, (one, rank) in waiting.items()}
    assert server.wait_for(start(server, sack("other")))["state"] == "SUCCESS"
    assert {server.status(kickoff_id)["state"] for kickoff_id in ids.values()} == {"PENDING"}
    holding.go()
    assert server.wait_for(first)["state"] == "SUCCESS"
    for kickoff_id in ids.values():
        assert server.wait_for(kickoff_id)["state"] == "SUCCESS"
    begun = {name: one.noted("calls")[0]["at"] for name, (one, _) in waiting.items()}
    assert sorted(begun, key=begun.__getitem__) == ["b", "e", "a", "c", "d"]


def test_a_token_has_as_many_runs_at_once_as_it_may(server, sack):
    """The node would take a fifth."""
    sacks = [sack(f"sack{n}", clean_task=["wait"]) for n in range(5)]
    ids = [start(server, one) for one in sacks]
    for one in sacks[:4]:
        one.wait_for("clean_task")
    assert server.status(ids[4])["state"] == "PENDING"
    released = time.time()
    for one in sacks:
        one.go()
    assert [server.wait_for(kickoff_id)["state"] for kickoff_id in ids] == ["SUCCESS"] * 5
    assert sacks[4].noted("calls")[0]["at"] > released
