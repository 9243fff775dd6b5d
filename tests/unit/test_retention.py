"""Old runs go with their log files; what still has something to deliver stays."""

import asyncio

import pytest

from crewcast.core.backoff import DAY, HOUR, MINUTE, SECOND, RetryPolicy
from crewcast.core.outcome import Outcome
from crewcast.dispatch.transport import FakeTransport
from crewcast.retention import FOREVER, Retention
from tests.scenarios.world import world

HOOK = "http://sub.example/hook"
KEEP = 30 * DAY


def test_what_runs_store_for_themselves_goes_with_their_end(tmp_path):
    async def story():
        storage = tmp_path / "storage"
        async with world(tmp_path / "store", FakeTransport({}, Outcome("ok", 204))) as w:
            ended, at_work = await w.run(step=HOOK), await w.run(step=HOOK)
            await w.say(ended, "crew")
            for name in (ended.id, at_work.id, "01a20bb3-f86a-76d4-9da0-7cc97b4db906"):
                await asyncio.to_thread((storage / name / "deep").mkdir, parents=True)
            retention = Retention(w.store, w.clock, 0, tmp_path / "logs", storage)
            await step(w.clock, retention.remove())
            return at_work.id

    kept = asyncio.run(story())
    assert [folder.name for folder in (tmp_path / "storage").iterdir()] == [kept]


def logs_of(tmp_path, *run_ids):
    folder = tmp_path / "logs"
    folder.mkdir(exist_ok=True)
    for run_id in run_ids:
        (folder / f"{run_id}.log").write_text("said")
    return folder


def left(folder):
    return {file.stem for file in folder.glob("*.log")}


async def step(clock, doing):
    """Time goes on while `doing` pauses."""
    task = asyncio.create_task(doing)
    while not task.done():
        clock.advance(1000)
        await asyncio.sleep(0.001)
    await task


def test_a_run_goes_when_it_is_old_and_delivered(tmp_path):
    async def story():
        transport = FakeTransport({HOOK: [Outcome("ok", 204)]}, Outcome("refused"))
        policy = RetryPolicy(give_up_after=9999 * DAY)
        async with world(tmp_path / "store", transport, policy=policy) as w:
            done, waits, runs_on = await w.run(step=HOOK), await w.run(step=HOOK), await w.run(step=HOOK)
            await w.say(done, "step", "crew")
            await w.until(lambda: len(transport.sent) == 1)
            await w.say(waits, "step", "crew")
            await w.until(lambda: len(transport.sent) == 2)
            everyone = (done.id, waits.id, runs_on.id)
            folder = await asyncio.to_thread(logs_of, tmp_path, *everyone)
            retention = Retention(w.store, w.clock, KEEP, folder, tmp_path / "storage")

            async def gone():
                await step(w.clock, retention.remove())
                return [await w.store.run(run_id) is None for run_id in everyone]

            ended = (await w.store.run(done.id)).finished_at
            w.clock.advance(ended + KEEP - SECOND - w.clock.now())
            assert await gone() == [False, False, False]
            w.clock.advance(SECOND)
            assert await gone() == [True, False, False]
            assert await asyncio.to_thread(left, folder) == {waits.id, runs_on.id}
            assert await w.store.sweep(1) == 0, "all its rows are gone"

    asyncio.run(story())


def test_with_zero_all_is_kept_and_what_was_deleted_by_hand_goes(tmp_path):
    async def story():
        async with world(tmp_path / "store", FakeTransport()) as w:
            kept, deleted = await w.run(step=HOOK), await w.run(step=HOOK)
            await w.say(kept, "step", "crew")
            await w.say(deleted, "step", "crew")
            await w.quiet()
            await w.store.delete_run(deleted.id)
            w.clock.advance(4000 * DAY)
            await step(
                w.clock, Retention(w.store, w.clock, 0, tmp_path / "logs", tmp_path / "storage").remove()
            )
            assert await w.store.run(kept.id) is not None
            assert await w.store.sweep(1) == 0

    asyncio.run(story())


def test_log_files_of_runs_that_nobody_knows_go_at_the_start(tmp_path):
    async def story():
        async with world(tmp_path / "store", FakeTransport()) as w:
            run = await w.run(step=HOOK)
            unknown = "01a20bb3-f86a-76d4-9da0-7cc97b4db906"
            folder = await asyncio.to_thread(logs_of, tmp_path, run.id, unknown, "odd")
            await asyncio.to_thread((folder / "other.txt").write_text, "not ours")
            retaining = asyncio.create_task(
                Retention(w.store, w.clock, KEEP, folder, tmp_path / "storage").run()
            )
            while await asyncio.to_thread(left, folder) != {run.id}:
                await asyncio.sleep(0.005)
            retaining.cancel()
            await asyncio.gather(retaining, return_exceptions=True)

    asyncio.run(asyncio.wait_for(story(), 60))
    assert (tmp_path / "logs" / "other.txt").exists()


class Waited:
    """The clock, and how often it was waited for."""

    def __init__(self, clock):
        self.clock, self.now, self.waits = clock, clock.now, 0

    async def wait(self, event, timeout):  # noqa: ASYNC109 - the seam's own
        self.waits += 1
        return await self.clock.wait(event, timeout)

    async def until_waited_for(self, more_than):
        while self.waits <= more_than:
            await asyncio.sleep(0.001)

    async def minutes(self, count):
        """So many of them, each once all that came of the last one is done."""
        for _ in range(count):
            waits = self.waits
            self.clock.advance(MINUTE)
            await self.until_waited_for(waits)


@pytest.mark.parametrize(("look_again", "goes"), [(HOUR, True), (FOREVER, False), (None, False)])
def test_the_log_of_a_run_that_another_node_removed_goes_when_it_is_looked_for_again(
    tmp_path, look_again, goes
):
    async def story():
        async with world(tmp_path / "store", FakeTransport()) as w:
            run = await w.run(step=HOOK)
            await w.say(run, "crew")
            folder = await asyncio.to_thread(logs_of, tmp_path, run.id)
            clock = Waited(w.clock)
            retention = Retention(w.store, clock, 0, folder, tmp_path / "storage", look_again=look_again)
            retaining = asyncio.create_task(retention.run())
            await clock.until_waited_for(0)
            await clock.minutes(3)
            await w.store.delete_run(run.id)
            await clock.minutes(56)
            assert await asyncio.to_thread(left, folder) == {run.id}
            # An hour after the first look.
            await clock.minutes(1)
            assert (await asyncio.to_thread(left, folder) == set()) == goes
            retaining.cancel()
            await asyncio.gather(retaining, return_exceptions=True)

    asyncio.run(story())


def test_without_a_folder_of_logs_there_is_nothing_to_do(tmp_path):
    async def story():
        async with world(tmp_path / "store", FakeTransport()) as w:
            await step(
                w.clock,
                Retention(w.store, w.clock, KEEP, tmp_path / "none", tmp_path / "storage").remove_strays(),
            )

    asyncio.run(story())
