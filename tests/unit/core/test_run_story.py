"""Any story of a run: claimed, paused, decided, stopped, given back, ended, in any order that the table has."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from crewcast.core import review as reviews
from crewcast.core import run as runs
from crewcast.core.review import Choice, Decision, Default, Due, How, Review, ReviewState
from crewcast.core.run import ENDED, RunState

NOW = 1_750_000_000_000_000
LEASE = 60_000_000
Rule = Callable[[Any], None]


def state_is(*states: RunState) -> Callable[[Rule], Rule]:
    return precondition(lambda story: story.run.state in states)


class RunStory(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.run = runs.new_run("0197-run", "brief", b"{}", NOW)
        self.reviews: list[Review] = []
        self.held = 0  # microseconds in somebody's hands
        self.attempt = 0  # as it has to be
        self.resumed = False
        self.ends = 0

    @initialize(every=st.none() | st.integers(1, 50), expires=st.none() | st.integers(1, 99))
    def limits(self, every, expires) -> None:
        self.every, self.expires = every, expires

    @rule(passed=st.integers(0, 40))
    def time_passes(self, passed) -> None:
        self.now += passed
        if self.run.state is RunState.RUNNING:
            self.held += passed

    # --- ways -------------------------------------------------------------------------------

    @state_is(RunState.QUEUED)
    @rule()
    def is_claimed(self) -> None:
        self.run = runs.claim(self.run, "lease", self.now, LEASE)
        self.attempt += not self.resumed
        self.resumed = False

    @state_is(RunState.RUNNING)
    @rule(default=st.none() | st.sampled_from(Default))
    def asks(self, default) -> None:
        asked = Review(
            self.run.id, len(self.reviews) + 1, "task", 1, "uuid", "Writer", "A draft.", self.now,
            None if self.expires is None else self.now + self.expires, default, self.every,
        )  # fmt: skip
        self.run = runs.pause(self.run, self.now)
        self.reviews.append(reviews.ask(asked))

    @state_is(RunState.WAITING)
    @rule(approve=st.booleans(), feedback=st.text(max_size=3))
    def is_decided(self, approve, feedback) -> None:
        decision = Decision(approve, feedback, "kim", How.API)
        assert not reviews.same(self.reviews[-1], decision)
        self.reviews[-1] = reviews.decide(self.reviews[-1], decision, self.now)
        assert reviews.same(self.reviews[-1], decision)
        self._go_on()

    @precondition(
        lambda story: (
            story.run.state is RunState.WAITING and reviews.due(story.reviews[-1], story.now) is Due.DEADLINE
        )
    )
    @rule()
    def meets_its_deadline(self) -> None:
        self.reviews[-1] = reviews.expire(self.reviews[-1], self.now)
        if self.reviews[-1].state is ReviewState.DECIDED:
            self._go_on()
        else:
            self._end(RunState.FAILED)

    @precondition(
        lambda story: (
            story.run.state is RunState.WAITING and reviews.due(story.reviews[-1], story.now) is Due.REMINDER
        )
    )
    @rule()
    def is_reminded_of(self) -> None:
        before = self.reviews[-1]
        self.reviews[-1] = reviews.remind(before, self.now)
        assert self.reviews[-1].reminders == before.reminders + 1
        assert reviews.due(self.reviews[-1], self.now) is None

    @state_is(RunState.RUNNING)
    @rule()
    def is_lost(self) -> None:
        self.run = runs.requeue(self.run, self.now)

    @state_is(RunState.RUNNING)
    @rule(by=st.sampled_from(["kim", "lee"]))
    def is_asked_to_stop(self, by) -> None:
        self.run = replace(self.run, stop=self.run.stop or by)

    @precondition(lambda story: not story.run.state.ended)
    @rule()
    def is_stopped(self) -> None:
        if self.run.state is RunState.WAITING:
            self.reviews[-1] = reviews.void(self.reviews[-1], self.now, "kim")
        self._end(RunState.CANCELLED)

    @state_is(RunState.RUNNING)
    @rule(state=st.sampled_from([RunState.COMPLETED, RunState.FAILED]))
    def finishes(self, state) -> None:
        self._end(state)

    # --- no ways ----------------------------------------------------------------------------

    @precondition(lambda story: story.run.state.ended)
    @rule(state=st.sampled_from(RunState))
    def never_comes_back(self, state) -> None:
        with pytest.raises(ValueError, match="no way"):
            runs.move(self.run, state)

    @state_is(RunState.WAITING, *ENDED)
    @rule()
    def is_not_claimed(self) -> None:
        with pytest.raises(ValueError, match="no way"):
            runs.claim(self.run, "lease", self.now, LEASE)

    @precondition(lambda story: story.reviews and story.run.state is not RunState.WAITING)
    @rule()
    def is_not_decided_late(self) -> None:
        assert reviews.due(self.reviews[-1], self.now + 10**9) is None
        with pytest.raises(ValueError, match="review"):
            reviews.decide(self.reviews[-1], Decision(True, "", "kim", How.CLI), self.now)
        with pytest.raises(ValueError, match="waits for no decision"):
            runs.resume(self.run)

    # --- what holds -------------------------------------------------------------------------

    def _go_on(self) -> None:
        self.run = runs.resume(self.run)
        self.resumed = True

    def _end(self, state: RunState) -> None:
        self.run = runs.end(self.run, state, self.now)
        self.ends += 1

    @invariant()
    def it_ends_once(self) -> None:
        assert self.ends == self.run.state.ended == (self.run.finished_at is not None)

    @invariant()
    def attempts_count_the_tries_and_not_the_decisions(self) -> None:
        assert self.run.attempt == self.attempt

    @invariant()
    def who_runs_holds_a_lease_and_nobody_else_does(self) -> None:
        running = self.run.state is RunState.RUNNING
        assert (self.run.lease_token is not None) == (self.run.lease_until is not None) == running
        assert (self.run.claimed_at is not None) == running

    @invariant()
    def a_waiting_run_asks_one_thing_and_no_other_run_asks_any(self) -> None:
        pending = [one for one in self.reviews if one.state is ReviewState.PENDING]
        assert pending == (self.reviews[-1:] if self.run.state is RunState.WAITING else [])
        assert all(
            (one.decision in set(Choice)) == (one.state is ReviewState.DECIDED) for one in self.reviews
        )

    @invariant()
    def it_continues_only_from_a_decision_to_the_next_claim(self) -> None:
        assert self.run.continues == (self.resumed and self.run.state is RunState.QUEUED)

    @invariant()
    def work_is_the_time_in_somebodys_hands(self) -> None:
        assert runs.work(self.run, self.now) == self.held


RunStory.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestRunStory = RunStory.TestCase
