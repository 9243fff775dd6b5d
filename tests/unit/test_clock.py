"""The store's clock, kept by a machine whose own may be anything."""

import asyncio
import time

import pytest

from crewcast.clock import DRIFT, SYNCHRONISE_EVERY, StoreClock, since_boot
from crewcast.core.backoff import SECOND
from crewcast.core.errors import StoreError

THERE = 1_750_000_000_000_000  # what the store's clock says when this machine has counted to 0


class Machine:
    """A count of time of its own, and a store that is `ahead` of it; each reading takes `there` and `back`."""

    def __init__(self, there=0, back=0):
        self.count = 0
        self.ahead = THERE
        self.there = there
        self.back = back
        self.down = False
        self.reads = 0

    def steady(self):
        return self.count

    async def read(self):
        self.reads += 1
        if self.down:
            raise StoreError("away")
        self.count += self.there
        told = self.count + self.ahead
        self.count += self.back
        return told


def clock_of(machine):
    clock = StoreClock(machine.read, machine.steady)
    asyncio.run(clock.synchronise())
    return clock


def test_before_it_was_synchronised_it_tells_nothing():
    machine = Machine()
    with pytest.raises(RuntimeError):
        StoreClock(machine.read, machine.steady).now()


def test_a_store_that_cannot_be_read_is_told_of():
    machine = Machine()
    machine.down = True
    with pytest.raises(StoreError):
        clock_of(machine)


def test_it_tells_the_time_of_the_store_and_goes_on_by_itself():
    machine = Machine()
    clock = clock_of(machine)
    assert clock.now() == THERE
    machine.count += 90 * SECOND
    assert clock.now() == THERE + 90 * SECOND
    assert machine.reads == 1


@pytest.mark.parametrize(("there", "back", "off"), [(400, 400, 0), (0, 800, -400), (800, 0, 400)])
def test_it_is_wrong_by_at_most_half_of_the_round_trip(there, back, off):
    machine = Machine(there, back)
    clock = clock_of(machine)
    # The moment that was told is taken for the middle of the trip.
    assert clock.now() == machine.count + THERE + off


def test_a_jump_of_the_wall_clock_changes_nothing(monkeypatch):
    machine = Machine()
    clock = clock_of(machine)
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert clock.now() == THERE
    asyncio.run(clock.synchronise())
    assert clock.now() == THERE


@pytest.mark.parametrize("wall", [0, THERE - 300 * SECOND, THERE + 300 * SECOND])
def test_what_a_machine_with_a_wrong_wall_clock_noted_is_told_by_this_one(monkeypatch, wall):
    machine = Machine()
    clock = clock_of(machine)
    monkeypatch.setattr(time, "time_ns", lambda: wall * 1000)
    assert clock.of_wall(wall - 7) == THERE - 7
    assert clock.of_wall(wall + 7) == THERE  # it jumped since: nothing has happened later than now


def test_a_slow_reading_does_not_replace_a_quick_one_that_is_fresh():
    machine = Machine(50, 50)
    clock = clock_of(machine)
    machine.there, machine.back = 0, 200_000  # it would be wrong by 100 ms
    asyncio.run(clock.synchronise())
    assert clock.now() == machine.count + THERE


def test_a_slow_reading_replaces_one_that_may_have_drifted():
    machine = Machine()
    clock = clock_of(machine)
    machine.count += 1000 * DRIFT  # it may be wrong by 1000 by now
    machine.ahead += 700  # and it is
    machine.there = machine.back = 999
    asyncio.run(clock.synchronise())
    assert clock.now() == machine.count + THERE + 700


def test_what_the_machine_counts_never_goes_back():
    counted = [since_boot() for _ in range(100)]
    assert counted == sorted(counted)


class Stepped(StoreClock):
    """Waits as long as it takes a test to say so, and remembers for how long that was asked."""

    def __init__(self, *args):
        super().__init__(*args)
        self.asked = []
        self.steps = asyncio.Semaphore(0)

    async def wait(self, event, timeout):  # noqa: ASYNC109 - the seam's own
        self.asked.append(timeout)
        await self.steps.acquire()
        return False


def test_it_is_set_again_every_few_seconds_and_an_error_is_waited_out():
    async def story():
        machine = Machine()
        clock = Stepped(machine.read, machine.steady)
        await clock.synchronise()
        keeping = asyncio.create_task(clock.run())

        async def step():
            reads = machine.reads
            clock.steps.release()
            while machine.reads == reads:
                await asyncio.sleep(0)
            await asyncio.sleep(0)

        machine.down = True
        await step()
        assert clock.now() == machine.count + THERE
        machine.down, machine.ahead = False, THERE + 5
        await step()
        assert clock.now() == machine.count + THERE + 5
        assert set(clock.asked) == {SYNCHRONISE_EVERY}
        assert not keeping.done()
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)

    asyncio.run(story())
