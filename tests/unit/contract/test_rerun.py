"""What a new run takes over from the journal of another."""

import json

import msgspec
import pytest

from crewcast.contract.problem import Problem
from crewcast.contract.rerun import parse_rerun, take_over
from crewcast.core import run as runs

BEFORE = runs.new_run(
    "01a20bb3-f86a-76d4-9da0-7cc97b4db906", "crew", b'{"topic":"tea","size":1}', 1, meta=b'{"a":1}'
)
TASKS = ["look", "think", "maybe", "write"]


def kept(*finished, skipped=(), **more):
    entries = {
        "run": {"tasks": TASKS, "inputs": {"topic": "TEA", "size": 1}, **more},
        "usage": {},
        "spent": {},
    }
    entries |= {f"task:{task}": {"told": {"task_id": task}} for task in finished}
    entries |= {f"comment:{task}": {"text": "good"} for task in finished}
    if skipped:
        entries["skipped"] = list(skipped)
    return {name: msgspec.json.encode(value) for name, value in entries.items()}


def asked(**fields):
    return parse_rerun(json.dumps(fields).encode(), BEFORE)


def taken(journal, **fields):
    return take_over(BEFORE, journal, asked(**fields))


def refused(journal, **fields) -> str:
    with pytest.raises(Problem) as caught:
        taken(journal, **fields)
    assert caught.value.status == 422
    message: str = caught.value.body["message"]
    return message


def test_the_finished_tasks_before_it_come_along_with_what_was_said_of_them():
    found = taken(kept("look", "think", "write"), from_task="think")
    assert (found.first, found.done) == ("think", 1)
    assert set(found.journal) == {"run", "task:look", "comment:look"}


def test_without_a_task_it_begins_with_the_first_that_was_not_finished():
    assert taken(kept("look")).first == "think"
    assert taken(kept("look", "think", skipped=["maybe"])).first == "write"
    assert taken(kept(*TASKS)).first == "write"


def test_a_task_is_named_by_its_number_too():
    assert taken(kept("look", "think"), from_task=2).first == "think"
    assert taken(kept("look", "think"), from_task="3").first == "maybe"


def test_inputs_that_change_are_put_over_those_that_were_in_force():
    found = taken(kept("look"), from_task=2, inputs={"size": 2})
    assert json.loads(found.journal["run"])["inputs"] == {"topic": "TEA", "size": 2}
    assert asked(inputs={"size": 2}).kickoff == {"inputs": {"topic": "tea", "size": 2}, "meta": {"a": 1}}


def test_from_the_first_task_nothing_is_taken_over():
    found = taken(kept("look"), from_task=1)
    assert (found.journal, found.done, found.first) == ({}, 0, "look")


def test_a_skipped_task_stays_skipped():
    found = taken(kept("look", "think", skipped=["maybe"]), from_task="write")
    assert json.loads(found.journal["skipped"]) == ["maybe"]
    assert found.done == 2
    assert "skipped" not in taken(kept("look", "think", skipped=["maybe"]), from_task="think").journal


def test_a_task_behind_one_that_was_not_finished_is_refused():
    assert "were not finished: think, maybe" in refused(kept("look"), from_task="write")


@pytest.mark.parametrize("task", ["nothing", 0, 5, "٣", ""])
def test_a_task_that_is_none_is_refused_with_those_that_are(task):
    assert "there are: look, think, maybe, write" in refused(kept("look"), from_task=task)


def test_a_run_that_kept_nothing_cannot_be_begun_from():
    assert "kept nothing" in refused({}, from_task=1)
    assert "no JSON" in refused(kept("look", problem="its inputs are no JSON"), from_task=2)


@pytest.mark.parametrize("fields", [{"from_task": True}, {"from_task": [1]}, {"inputs": "tea"}])
def test_what_cannot_be_meant(fields):
    with pytest.raises(Problem) as caught:
        asked(**fields)
    assert caught.value.status == 422
