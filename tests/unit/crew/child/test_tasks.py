"""Task ids that survive a rebuild of the crew, and what is known of each task."""

import contextvars
import threading
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import pytest

from crewcast.crew.child.tasks import NOWHERE, TaskBook, role_of, stable_ids


@dataclass
class Agent:
    role: str | None


@dataclass
class Task:
    name: str | None = None
    agent: Any = None
    id: UUID = field(default_factory=uuid4)


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        ([], []),
        (["a", "b"], ["a", "b"]),
        ([None, "", "  "], ["task-1", "task-2", "task-3"]),
        (["a", "a", "a"], ["a", "a-2", "a-3"]),
        (["a", "a", "a-2"], ["a", "a-2", "a-2-2"]),
        (["a-2", "a", "a"], ["a-2", "a", "a-3"]),
        (["task-2", None], ["task-2", "task-2-2"]),
        ([" a\n", "a"], ["a", "a-2"]),
    ],
)
def test_stable_ids(names, ids):
    assert stable_ids([Task(name) for name in names]) == ids


@pytest.mark.parametrize(
    ("role", "expected"), [("Writer\n", "Writer"), ("", None), (" ", None), (None, None)]
)
def test_roles_are_stripped(role, expected):
    assert role_of(Agent(role)) == expected


def test_no_agent_has_no_role():
    assert role_of(None) is None


def in_a_new_thread(function):
    """What it returns in a thread that inherits no context."""
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join(30)
    return found[0]


def test_a_task_is_current_where_it_started_and_in_what_it_leaves_behind():
    tasks = [Task("a"), Task("b")]
    book = TaskBook(tasks)
    assert not book.any_started()
    assert book.current() == NOWHERE
    book.start("a")
    beside, left = contextvars.copy_context(), contextvars.copy_context()
    beside.run(book.start, "b")
    assert (book.current(), beside.run(book.current)) == ("a", "b")
    book.end("a")
    assert (book.current(), beside.run(book.current), left.run(book.current)) == (NOWHERE, "b", "a")
    assert [book.is_over(task_id) for task_id in "ab"] == [True, False]
    assert in_a_new_thread(book.current) is None
    assert book.known(str(tasks[0].id)) == "a"
    assert book.known("unknown") is None


def test_a_task_starts_once():
    book = TaskBook([Task("a"), Task("b")])
    assert (book.start("a"), book.start("a")) == (True, False)
    book.end("a")
    # One that failed before it began has ended all the same.
    book.end("b")
    assert (book.start("a"), book.start("b")) == (False, False)
    assert book.current() == NOWHERE


def test_a_crew_that_is_kicked_off_again_has_tasks_of_its_own():
    tasks = [Task("a"), Task()]
    book = TaskBook(tasks)
    again = [Task("a"), Task()]
    book.add(again)
    assert [book.known(task.id) for task in tasks + again] == ["a", "task-2", "a-2", "task-4"]
    assert book.claim("a", 0.0) == "a-3"
    assert book.claim("save", 0.0) == "save"


def test_what_began_and_did_not_end_is_known():
    book = TaskBook([Task("a", Agent("{who}")), Task("b", Agent("B")), Task("c")])
    assert book.left_open() == []
    book.start("a", "Anna")
    book.start("b")
    assert book.claim("save", 0.0) == "save"
    assert not book.is_over("c")
    assert not book.is_over("b")
    book.finish("b", "B", "", 1.0)
    assert book.is_over("b")
    assert book.left_open() == [("a", "Anna"), ("save", None)]


def test_a_task_that_its_crew_lists_twice_has_two_ids_in_turn():
    task, other = Task("a"), Task("b")
    book = TaskBook([task, other, task])
    assert book.known(task.id) == "a"
    book.start("a")
    book.end("a")
    assert book.known(task.id) == "a-2"
    book.end("a-2")
    assert book.known(task.id) == "a-2"
    # Kicked off again, whatever became of the first time.
    book.add([task, other, task])
    assert [book.known(task.id), book.known(other.id)] == ["a-3", "b-2"]


def test_finished_tasks_are_listed_in_the_order_of_the_crew():
    book = TaskBook([Task("a", Agent("A ")), Task("b"), Task("c")])
    assert book.overview() == [
        {"task_id": "a", "agent": "A"},
        {"task_id": "b", "agent": None},
        {"task_id": "c", "agent": None},
    ]
    book.finish("c", "C", "late", 2.0)
    book.finish("a", "A", "early", 1.0)
    assert book.finished() == [
        {"task_id": "a", "agent": "A", "output": "early", "execution_time": 1.0},
        {"task_id": "c", "agent": "C", "output": "late", "execution_time": 2.0},
    ]


def test_a_task_that_never_started_took_no_time():
    book = TaskBook([Task("a")])
    assert book.seconds("a") == 0.0
    book.start("a")
    assert book.seconds("a") >= 0.0
