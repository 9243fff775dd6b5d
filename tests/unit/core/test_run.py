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
