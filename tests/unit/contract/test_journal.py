"""What a run has journalled, as far as the server looks into it."""

import json

import pytest

from crewcast.contract.journal import finished_tasks, told_of

TOLD = {"task_id": "a/b", "agent": "A", "output": "done", "execution_time": 0.5}


@pytest.mark.parametrize(
    "name", ["task:a/b", "crew:write|1|0f|1/task:a/b", "method:write|1/task:a/b", "task:crew:a/b"]
)
def test_a_finished_task_is_told_whatever_its_name_and_wherever_it_is_kept(name):
    assert told_of(name, {"told": TOLD, "output": {}}) == TOLD


@pytest.mark.parametrize(
    "name", ["flow", "run", "pending", "comment:task:a", "crew:write|1|0f|1/call", "crew:task:a/done"]
)
def test_other_entries_tell_of_no_task(name):
    assert told_of(name, {"told": TOLD}) is None


def test_what_is_not_there_tells_nothing():
    assert told_of("task:a", None) is None


def test_finished_tasks_are_by_their_ids():
    entries = {
        "task:x": {"told": TOLD},
        "crew:w|1|0f|1/task:c": {"told": {**TOLD, "task_id": "c"}},
        "flow": {},
    }
    found = finished_tasks({name: json.dumps(value).encode() for name, value in entries.items()})
    assert list(found) == ["a/b", "c"]
