"""The state machine of a run."""

import pytest
from msgspec.structs import replace

from crewcast.core import run as runs
from crewcast.core.run import ENDED, TRANSITIONS, RunState

NOW = 1_750_000_000_000_000


def queued() -> runs.Run:
    return runs.new_run("0197-run", "brief", b"{}", NOW)


def test_every_state_has_its_row_and_ended_states_lead_nowhere():
    assert set(TRANSITIONS) == set(RunState)
    assert {state for state, ways in TRANSITIONS.items() if not ways} == ENDED


@pytest.mark.parametrize("start", RunState)
@pytest.mark.parametrize("goal", RunState)
def test_only_the_ways_of_the_table_can_be_gone(start, goal):
    run = replace(queued(), state=start)
    if goal in TRANSITIONS[start]:
        assert runs.move(run, goal).state is goal
    else:
        with pytest.raises(ValueError, match=f"no way from {start} to {goal}"):
            runs.move(run, goal)


def test_a_claim_starts_the_clock_once_and_counts_attempts():
    first = runs.claim(queued(), "lease", NOW + 5, 60)
    assert (first.attempt, first.started_at, first.lease_until) == (1, NOW + 5, NOW + 65)
    again = runs.claim(replace(first, state=RunState.QUEUED), "lease-2", NOW + 100, 60)
    assert (again.attempt, again.started_at) == (2, NOW + 5)


def test_a_pause_gives_the_lease_back_and_keeps_where_the_run_stands():
    run = runs.progress(runs.claim(queued(), "lease", NOW, 60), completed_tasks=1, current_task="research")
    waiting = runs.pause(run, NOW + 7)
    assert (waiting.state, waiting.lease_token, waiting.lease_until) == (RunState.WAITING, None, None)
    assert (waiting.attempt, waiting.completed_tasks, waiting.current_task) == (1, 1, "research")
    assert (waiting.worked, waiting.claimed_at) == (7, None)


def test_going_on_after_a_decision_is_no_new_attempt_and_a_later_loss_is():
    waiting = runs.pause(runs.claim(queued(), "lease", NOW, 60), NOW + 7)
    again = runs.resume(waiting)
    assert (again.state, again.continues) == (RunState.QUEUED, True)
    running = runs.claim(again, "lease-2", NOW + 1000, 60)
    assert (running.attempt, running.continues, running.claimed_at) == (1, False, NOW + 1000)
    lost = runs.requeue(running, NOW + 1005)
    assert (lost.state, lost.continues, lost.lease_token, lost.worked) == (RunState.QUEUED, False, None, 12)
    assert runs.claim(lost, "lease-3", NOW + 2000, 60).attempt == 2


def test_only_a_run_that_waits_goes_on_and_only_one_that_runs_is_given_back():
    with pytest.raises(ValueError, match="it is queued and waits for no decision"):
        runs.resume(queued())
    waiting = runs.pause(runs.claim(queued(), "lease", NOW, 60), NOW)
    with pytest.raises(ValueError, match="it is waiting, so nobody can give it back"):
        runs.requeue(waiting, NOW)
    with pytest.raises(ValueError, match="no way from queued to waiting"):
        runs.pause(queued(), NOW)


def test_a_wait_is_no_work():
    run = runs.claim(queued(), "lease", NOW, 60)
    assert runs.seconds(run, NOW + 2_000_000) == 2.0
    waiting = runs.pause(run, NOW + 3_000_000)
    assert runs.seconds(waiting, NOW + 10**12) == 3.0
    running = runs.claim(runs.resume(waiting), "lease", NOW + 10**12, 60)
    assert runs.work(running, NOW + 10**12 + 5) == 3_000_005
    assert runs.work(running, NOW) == 3_000_000  # a clock that went back takes nothing away
    ended = runs.end(running, RunState.COMPLETED, NOW + 10**12 + 1_500_000)
    assert runs.seconds(ended, NOW + 10**13) == 4.5


def test_an_end_while_queued_to_go_on_leaves_nothing_to_go_on_with():
    waiting = runs.pause(runs.claim(queued(), "lease", NOW, 60), NOW + 5)
    ended = runs.end(runs.resume(waiting), RunState.CANCELLED, NOW + 99)
    assert (ended.continues, ended.worked, ended.finished_at) == (False, 5, NOW + 99)


def test_a_new_run_has_the_limits_that_it_was_given():
    run = runs.new_run("0197-run", "brief", b"{}", NOW, priority=3, max_attempts=2, timeout=60_000_000)
    assert (run.priority, run.max_attempts, run.timeout) == (3, 2, 60_000_000)
    assert (run.stop, run.worked, run.claimed_at, run.continues) == (None, 0, None, False)


def test_an_end_gives_the_lease_back_and_tells_why():
    run = runs.progress(runs.claim(queued(), "lease", NOW, 60), current_task="research")
    ended = runs.end(run, RunState.FAILED, NOW + 2_500_000, error="boom", detail="Traceback")
    assert (ended.lease_token, ended.lease_until, ended.current_task) == (None, None, None)
    assert (ended.error, ended.error_detail) == ("boom", "Traceback")
    assert runs.seconds(ended, NOW + 99_000_000) == 2.5


def test_a_run_that_never_started_took_no_time():
    assert runs.seconds(queued(), NOW + 99) == 0.0


def test_progress_changes_only_what_is_named():
    run = runs.progress(queued(), total_tasks=3, current_task="a")
    run = runs.progress(run, completed_tasks=1)
    assert (run.total_tasks, run.completed_tasks, run.current_task) == (3, 1, "a")
