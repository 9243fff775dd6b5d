"""Workers that share a store: real crews in real processes, and time that moves by hand."""

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import psutil
import pytest

from crewcast.clock import ManualClock
from crewcast.core import ids
from crewcast.core import run as runs
from crewcast.core.backoff import SECOND
from crewcast.core.review_link import ReviewLinks
from crewcast.core.run import Run, RunState
from crewcast.crew import environment
from crewcast.crew.host import Host
from crewcast.crew.limits import CrewLimits, WorkerLimits
from crewcast.crew.project import discover
from crewcast.crew.served import ServedCrew
from crewcast.crew.supervision import Supervision
from crewcast.crew.worker import LOST, Worker
from crewcast.store.sqlite import SQLiteStore
from tests.scenarios.world import at_rest
from tests.support.mill import MILL, TASKS, Sack
from tests.support.shaky import Shaky

LEASE = 60 * SECOND
_serial = count(1)


class Floor:
    """One store, one clock, one host with CrewAI loaded, and any number of workers."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self.runner = runner
        python = environment.interpreter(str(MILL), None)
        self.host = Host(python, environment.variables(os.environ, python))
        self.crew = ServedCrew(discover(str(MILL)), self.host)
        runner.run(self.crew.describe())


@pytest.fixture(scope="module")
def floor() -> Iterator[Floor]:
    with asyncio.Runner() as runner:
        floor = Floor(runner)
        yield floor
        runner.run(floor.host.close())


class Story:
    def __init__(self, floor: Floor, folder: Path, store: SQLiteStore, group: asyncio.TaskGroup) -> None:
        self.floor, self.folder, self.store, self.group = floor, folder, store, group
        self.clock = ManualClock()
        self.workers: list[asyncio.Task[None]] = []

    def worker(self, store: object = None, *, attempts: int = 2, crews: bool = True) -> Worker:
        """At work, with a data folder of its own."""
        folder = self.folder / f"data-{len(self.workers)}"
        limits = WorkerLimits(lease=LEASE, patience=30.0, crew=CrewLimits(attempts=attempts))
        served = {"mill": self.floor.crew} if crews else {}
        worker = Worker(store or self.store, served, folder, self.clock, limits, ReviewLinks(bytes(32), None))  # type: ignore[arg-type]
        self.workers.append(self.group.create_task(worker.run()))
        return worker

    async def kickoff(self, sack: Sack, crew: str = "mill", **fields: object) -> str:
        now = self.clock.now()
        run_id = ids.run_id(now, next(_serial).to_bytes(10))
        inputs = f'{{"folder": "{sack.folder}"}}'.encode()
        await self.store.create_run(runs.new_run(run_id, crew, inputs, now, **fields), [], None, now)  # type: ignore[arg-type]
        return run_id

    async def left_behind(self, sack: Sack, crew: str = "mill", **fields: object) -> str:
        """A run that a worker had which is gone."""
        run_id = await self.kickoff(sack, crew, **fields)
        (run,) = await self.store.claim_runs([crew], 1, "gone", self.clock.now(), LEASE)
        assert run.id == run_id
        return run_id

    async def run(self, run_id: str) -> Run:
        run = await self.store.run(run_id)
        assert run is not None
        return run

    async def until(self, condition, within: float = 30) -> None:
        """Of a plain or an awaitable condition; the store's thread and the children take real moments."""
        end = time.monotonic() + within
        while True:
            found = condition()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return
            assert time.monotonic() < end, "never so"
            await asyncio.sleep(0.005)

    async def ended(self, run_id: str) -> Run:
        """Time goes on until the run has ended; the lease of what is at work is renewed meanwhile."""

        async def over() -> bool:
            await self.pass_second()
            return (await self.run(run_id)).state.ended

        await self.until(over, 60)
        return await self.run(run_id)

    async def pass_second(self) -> None:
        """Not faster than the store writes: or a lease would lapse while it is being renewed."""
        self.clock.advance(SECOND)
        await at_rest(self.store)

    async def queued(self, run_id: str) -> bool:
        """Whether it is; time goes on."""
        await self.pass_second()
        return (await self.run(run_id)).state is RunState.QUEUED

    async def crew_events(self, run_id: str) -> list[str]:
        return [event.type for event in await self.store.events(run_id) if event.type.startswith("crew.")]


@pytest.fixture
def tell(floor, tmp_path):
    """Runs a story on the floor."""

    def tell(story):
        @asynccontextmanager
        async def begun():
            store = await SQLiteStore.open(tmp_path / "store")
            try:
                async with asyncio.TaskGroup() as group:
                    told = Story(floor, tmp_path, store, group)
                    yield told
                    for worker in told.workers:
                        worker.cancel()
            finally:
                await store.close()

        async def whole():
            async with begun() as told:
                await story(told)

        floor.runner.run(whole())

    return tell


def at_work(sack: Sack) -> bool:
    return psutil.pid_exists(sack.worker)


def test_what_a_lost_worker_left_goes_on_after_its_lease_and_not_before(tell, tmp_path):
    async def story(s: Story):
        sack = Sack(tmp_path / "sack")
        run_id = await s.left_behind(sack)
        s.worker()
        for _ in range(3):
            await at_rest(s.store)
            s.clock.advance(LEASE // 4)
        await at_rest(s.store)
        assert (await s.run(run_id)).lease_token == "gone"
        assert sack.calls == []
        run = await s.ended(run_id)
        assert (run.state, run.attempt, sack.calls) == (RunState.COMPLETED, 2, TASKS)
        assert await s.crew_events(run_id) == ["crew.completed"]

    tell(story)


def test_a_worker_without_the_crew_gives_the_run_to_those_who_have_it(tell, tmp_path):
    async def story(s: Story):
        sack = Sack(tmp_path / "sack")
        run_id = await s.left_behind(sack, "elsewhere")
        s.worker()
        s.clock.advance(LEASE)
        await s.until(lambda: s.queued(run_id))
        assert sack.calls == []
        # The lost worker's time counts up to its last beat, and it never had one.
        assert (await s.run(run_id)).worked == 0

    tell(story)


def test_with_no_attempt_left_it_fails_with_one_crew_event(tell, tmp_path):
    async def story(s: Story):
        run_id = await s.left_behind(Sack(tmp_path / "sack"), max_attempts=1)
        s.worker()
        s.worker()
        s.clock.advance(LEASE + SECOND)
        run = await s.ended(run_id)
        assert (run.state, run.error) == (RunState.FAILED, LOST)
        assert await s.crew_events(run_id) == ["crew.error"]

    tell(story)


def test_a_run_that_was_to_stop_is_stopped_by_who_takes_it_over(tell, tmp_path):
    async def story(s: Story):
        run_id = await s.left_behind(Sack(tmp_path / "sack"))
        await s.store.request_stop(run_id, "kim")
        s.worker()
        s.clock.advance(LEASE + SECOND)
        run = await s.ended(run_id)
        assert (run.state, run.error) == (RunState.CANCELLED, "stopped by kim")

    tell(story)


def test_who_was_robbed_of_a_run_stops_its_child_and_writes_nothing(tell, tmp_path):
    async def story(s: Story):
        sack, other = (
            Sack(tmp_path / "sack", grind_task=["wait"]),
            Sack(tmp_path / "other", grind_task=["wait"]),
        )
        s.worker()
        run_id, kept_id = await s.kickoff(sack), await s.kickoff(other)
        await s.until(lambda: "grind_task" in sack.calls and "grind_task" in other.calls)
        assert await s.store.adopt(await s.run(run_id), "thief", s.clock.now() + LEASE)
        before = await s.run(run_id)
        assert at_work(sack)
        s.clock.advance(LEASE // 4)
        await s.until(lambda: not at_work(sack))
        assert at_work(other)
        after = await s.run(run_id)
        assert (after.seq, after.lease_token, after.state) == (before.seq, "thief", RunState.RUNNING)
        other.go()
        assert (await s.ended(kept_id)).state is RunState.COMPLETED

    tell(story)


def test_the_children_of_a_worker_that_hears_nothing_from_the_store_get_no_beat(tell, tmp_path, monkeypatch):
    async def story(s: Story):
        store, sack = Shaky(s.store), Sack(tmp_path / "sack", grind_task=["wait"])
        s.worker(store)
        run_id = await s.kickoff(sack)
        await s.until(lambda: "grind_task" in sack.calls)
        beats: list[Supervision] = []

        def beat(work: Supervision) -> None:
            beats.append(work)

        monkeypatch.setattr(Supervision, "beat", beat)
        store.down = True
        for _ in range(8):
            asked = store.asked.count("renew_runs")
            s.clock.advance(LEASE // 4)
            await s.until(lambda asked=asked: store.asked.count("renew_runs") > asked)
            await at_rest(s.store)  # it has heard that, and waits again
        assert beats == []
        store.down = False
        s.clock.advance(LEASE // 4)
        await s.until(lambda: beats)
        sack.go()
        assert (await s.ended(run_id)).state is RunState.COMPLETED

    tell(story)


def test_a_store_that_is_out_of_reach_for_a_while_costs_no_run_anything(tell, tmp_path):
    async def story(s: Story):
        store = Shaky(s.store)
        sack = Sack(tmp_path / "sack", clean_task=["wait"])
        s.worker(store)
        run_id = await s.kickoff(sack)
        await s.until(lambda: "clean_task" in sack.calls)
        store.down = True
        sack.go()  # what it says now cannot be stored
        asked = store.asked.count("append")
        await s.until(lambda: store.asked.count("append") > asked)
        for _ in range(5):
            await s.pass_second()
        store.down = False
        run = await s.ended(run_id)
        assert (run.state, run.attempt, sack.calls) == (RunState.COMPLETED, 1, TASKS)

    tell(story)


@pytest.mark.parametrize("verb", ["journal", "review"])
def test_a_run_begins_when_the_store_can_be_read_again(tell, tmp_path, verb):
    async def story(s: Story):
        store, sack = Shaky(s.store), Sack(tmp_path / "sack")
        store.deaf = {verb}
        s.worker(store)
        run = await s.ended(await s.kickoff(sack))
        assert store.deaf == set()
        assert (run.state, run.attempt, sack.calls) == (RunState.COMPLETED, 1, TASKS)

    tell(story)


def test_a_run_whose_claim_was_not_answered_is_worked_on(tell, tmp_path):
    async def story(s: Story):
        store, sack = Shaky(s.store), Sack(tmp_path / "sack")
        store.deaf = {"claim_runs"}
        run_id = await s.kickoff(sack)
        s.worker(store)
        await s.until(lambda: not store.deaf)
        run = await s.ended(run_id)
        assert (run.state, run.attempt, sack.calls) == (RunState.COMPLETED, 1, TASKS)

    tell(story)


def test_an_append_that_was_made_and_not_answered_is_made_once(tell, tmp_path):
    async def story(s: Story):
        store, sack = Shaky(s.store), Sack(tmp_path / "sack", grind_task=["wait"])
        s.worker(store)
        run_id = await s.kickoff(sack)
        await s.until(lambda: "grind_task" in sack.calls)
        pid = sack.worker
        store.deaf = {"append"}
        sack.go()
        await s.until(lambda: not store.deaf)
        run = await s.ended(run_id)
        assert (run.state, run.attempt, sack.calls, sack.worker) == (RunState.COMPLETED, 1, TASKS, pid)
        events = await s.store.events(run_id)
        assert [event.seq for event in events] == list(range(1, run.seq + 1))
        assert len({event.body for event in events}) == len(events)
        assert await s.crew_events(run_id) == ["crew.completed"]

    tell(story)


def test_a_takeover_whose_adoption_was_not_answered_is_finished(tell, tmp_path):
    """By a worker that does not serve the crew, so it cannot simply begin."""

    async def story(s: Story):
        store = Shaky(s.store)
        run_id = await s.left_behind(Sack(tmp_path / "sack"), "elsewhere")
        store.deaf = {"adopt"}
        s.worker(store)
        s.clock.advance(LEASE + SECOND)
        await s.until(lambda: s.queued(run_id))
        assert not store.deaf

    tell(story)


def test_a_child_that_ended_because_the_store_was_out_of_reach_has_used_no_attempt(tell, tmp_path):
    """As a child ends by itself when no beat comes; that it was killed looks the same here."""

    async def story(s: Story):
        store, sack = Shaky(s.store), Sack(tmp_path / "sack", grind_task=["wait", "wait"])
        s.worker(store, attempts=2)
        run_id = await s.kickoff(sack)
        for n in (1, 2):

            async def begun(n: int = n) -> bool:
                await s.pass_second()
                return sack.calls.count("grind_task") == n

            await s.until(begun)
            store.down = True
            for _ in range(3):
                s.clock.advance(LEASE // 4)
                await at_rest(s.store)
            psutil.Process(sack.worker).kill()
            await s.until(lambda: not at_work(sack))
            store.down = False
        run = await s.ended(run_id)
        assert (run.state, sack.calls) == (
            RunState.COMPLETED,
            ["clean_task", *["grind_task"] * 3, "pack_task"],
        )
        assert run.attempt == 3

    tell(story)


def test_a_worker_that_drains_takes_nothing_over(tell, tmp_path):
    async def story(s: Story):
        run_id = await s.left_behind(Sack(tmp_path / "sack"))
        await s.worker().drain(0)
        for _ in range(9):
            s.clock.advance(LEASE // 4)
            await at_rest(s.store)
        assert (await s.run(run_id)).lease_token == "gone"

    tell(story)
