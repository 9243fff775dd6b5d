"""Steps of an abandoned try, in whatever order the deliveries of a run's URLs come."""

import contextlib
import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest

from crewcast.webhooks import Superseded
from tests.unit.webhooks.deliveries import crew, step, task


@pytest.fixture
def superseded():
    with contextlib.closing(Superseded()) as found:
        yield found


def test_a_run_that_is_tried_once_supersedes_nothing(superseded):
    for one in (step("a1", "a", 1), task("a", 1), step("b1", "b", 1), task("b", 1), crew(1)):
        assert superseded.see(one) == {}
    assert superseded.of("k") == set()


def test_steps_of_the_task_that_was_at_work_are_superseded(superseded):
    for one in (step("a1", "a", 1), task("a", 1), step("b1", "b", 1), step("b2", "b", 1)):
        assert superseded.see(one) == {}
    assert superseded.see(step("b3", "b", 2)) == {"b1": True, "b2": True}
    assert superseded.see(step("b4", "b", 2)) == {}
    assert superseded.see(task("b", 2)) == {}
    assert superseded.see(crew(2)) == {}
    assert superseded.of("k") == {"b1", "b2"}


def test_any_event_of_a_later_try_shows_it(superseded):
    superseded.see(step("a1", "a", 1))
    assert superseded.see(crew(2)) == {"a1": True}


def test_an_old_step_that_comes_late_is_superseded_at_once(superseded):
    superseded.see(step("a2", "a", 2))
    assert superseded.see(step("a1", "a", 1)) == {"a1": True}
    assert superseded.see(step("a1", "a", 1)) == {}


def test_a_task_event_that_comes_late_takes_it_back(superseded):
    superseded.see(step("a1", "a", 1))
    assert superseded.see(step("b1", "b", 2)) == {"a1": True}
    assert superseded.see(task("a", 1)) == {"a1": False}
    assert superseded.of("k") == set()
    assert superseded.see(step("a1", "a", 1)) == {}, "a repetition after that"


@pytest.mark.parametrize("status", ["completed", "error", "awaiting_human_feedback"])
def test_a_try_that_came_to_an_end_is_not_abandoned(superseded, status):
    superseded.see(step("a1", "a", 1))
    superseded.see(task("a", 1, status))
    assert superseded.see(step("a2", "a", 2)) == {}


def test_a_review_begins_no_new_attempt_so_nothing_before_it_is_superseded(superseded):
    story = [
        step("a1", "a", 1, seq=1),
        task("a", 1, "awaiting_human_feedback", seq=2),
        step("a2", "a", 1, seq=4),  # rejected, and done again
        task("a", 1, "awaiting_human_feedback", seq=5),
        task("a", 1, seq=7),  # approved
        crew(1),
    ]
    for one in story:
        assert superseded.see(one) == {}


def test_what_was_redone_after_a_review_and_cut_is_superseded_and_what_was_judged_is_not():
    story = [
        step("a1", "a", 1, seq=1),
        task("a", 1, "awaiting_human_feedback", seq=2),
        step("a2", "a", 1, seq=4),
        step("a3", "a", 2, seq=5),
        task("a", 2, "awaiting_human_feedback", seq=6),
    ]
    for order in itertools.permutations(story):
        with contextlib.closing(Superseded()) as superseded:
            for one in order:
                superseded.see(one)
            assert superseded.of("k") == {"a2"}


def test_a_task_that_ends_in_a_later_try_leaves_the_older_one_abandoned(superseded):
    for one in (step("a1", "a", 1), step("a2", "a", 2), task("a", 2)):
        superseded.see(one)
    assert superseded.of("k") == {"a1"}
    assert superseded.see(step("b1", "b", 3)) == {}


def test_each_try_supersedes_those_before_it(superseded):
    superseded.see(step("a1", "a", 1))
    assert superseded.see(step("a2", "a", 2)) == {"a1": True}
    assert superseded.see(step("a3", "a", 3)) == {"a2": True}
    assert superseded.of("k") == {"a1", "a2"}


def test_runs_do_not_mix(superseded):
    superseded.see(step("a1", "a", 1))
    assert superseded.see(step("x", "a", 2, run="other")) == {}
    assert superseded.of("k") == set()


def test_what_has_no_task_or_no_attempt_is_left_alone(superseded):
    superseded.see(step("a1", None, 1))
    superseded.see(step("a2", "a", 0))
    assert superseded.see(crew(2)) == {}


def test_the_order_in_which_they_come_changes_nothing_at_the_end(tmp_path):
    story = [step("a1", "a", 1), task("a", 1), step("b1", "b", 1), step("b2", "b", 2), task("b", 2), crew(2)]
    for order in itertools.permutations(story):
        with contextlib.closing(Superseded()) as superseded:
            state: dict[str, bool] = {}
            for one in order:
                changed = superseded.see(one)
                assert all(state.get(name, False) is not void for name, void in changed.items())
                state |= changed
            assert {name for name, void in state.items() if void} == superseded.of("k") == {"b1"}


def test_a_file_remembers_over_a_restart(tmp_path):
    with contextlib.closing(Superseded(tmp_path / "steps.db")) as one:
        one.see(step("a1", "a", 1))
    with contextlib.closing(Superseded(tmp_path / "steps.db")) as other:
        assert other.see(crew(2)) == {"a1": True}


def test_two_that_share_a_file_wait_for_each_other(tmp_path, monkeypatch):
    monkeypatch.setattr("crewcast.webhooks.file.PATIENCE", 60)  # of three, one may wait long on a slow disk
    path, told = tmp_path / "steps.db", []

    def see(name):
        with contextlib.closing(Superseded(path)) as superseded:
            for n in range(100):
                told.append(superseded.see(step(f"{name}{n}", "a", 1)))

    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(see, name) for name in "xyz"]:
            done.result()
    assert told == [{}] * 300
    with contextlib.closing(Superseded(path)) as superseded:
        assert len(superseded.see(crew(2))) == 300


def test_what_was_not_touched_for_long_is_forgotten():
    now = [0.0]
    with contextlib.closing(Superseded(keep=100, clock=lambda: now[0])) as superseded:
        superseded.see(step("a1", "a", 1))
        superseded.see(crew(2))
        now[0] = 101.0
        superseded.see(step("x", "a", 1, run="other"))
        assert superseded.of("k") == set()
        assert superseded.see(crew(3)) == {}
