"""A lane whose order was lifted at kickoff: several events in flight."""

import asyncio
from collections import deque
from typing import NamedTuple

from msgspec.structs import replace

from crewcast.core.event import Channel, Event
from crewcast.core.lane import Lane
from crewcast.dispatch.lanes import UNSETTLED, End, LaneWork, Sent

IN_FLIGHT = 16
# Answered ones behind one that is still in flight are settled after it, since a lane has one cursor: a crash
# repeats no more than these.
WINDOW = 64


class _Flight(NamedTuple):
    event: Event
    task: asyncio.Task[Sent | None]


class UnorderedWork(LaneWork):
    """`"ordering": "none"` lifts the order between events: each is sent as soon as there is a slot for it, and
    one that fails is tried again on a lane of its own, so that nothing waits for it.

    One thing is left of the order: the crew event is not sent before every earlier event of its lane was
    answered, so it is the last new thing that the URL hears of the run. It waits neither for what is tried
    again nor for other lanes; `crewcast-pending` counts what they still have.

    When the subscriber closes the lane (410), what is in flight behind that event is a dead letter with the rest.
    """

    async def _work(self) -> End:
        window: deque[_Flight] = deque()
        try:
            end = None
            while end is None:
                self.wake.clear()
                end = await self._through(window)
            return end
        finally:
            for flight in window:
                flight.task.cancel()
            await asyncio.gather(*(flight.task for flight in window), return_exceptions=True)

    async def _through(self, window: deque[_Flight]) -> End | None:
        """Starts what may start, records what was answered, and waits for the next of either."""
        stopping = self._shared.stop.is_set()
        if not stopping and not await self._launch(window):
            return End.GONE
        while window and window[0].task.done():
            event, task = window.popleft()
            self._in_flight = len(window)
            sent = task.result()
            if sent is None:
                return End.GIVE_BACK
            if not self._record(event, *sent):
                return End.GONE
        if len(self._unsettled) > UNSETTLED and not await self._settled(UNSETTLED):
            return End.GONE
        if window:
            await self.wake.wait()
        elif stopping:
            return End.GIVE_BACK
        elif not self._ahead and not self.heard:
            return await self._rest()
        return None

    async def _launch(self, window: deque[_Flight]) -> bool:
        """Starts what may start; False if the lease is lost."""
        flying = sum(not flight.task.done() for flight in window)
        while flying < IN_FLIGHT and len(window) < WINDOW:
            if not self._ahead and self.heard:
                await self._read(self._place(window))
            if not self._ahead:
                break
            lane_seq, event = self._ahead[0]
            pending = None
            if event.channel is Channel.CREW:
                if window:
                    break
                if not await self._settled(0):  # what left this lane is counted too
                    return False
                pending = await self._beside(event)
            self._ahead.popleft()
            task = asyncio.create_task(self._send(lane_seq, event, pending))
            task.add_done_callback(lambda _: self.wake.set())
            window.append(_Flight(event, task))
            flying += 1
        return True

    def _place(self, window: deque[_Flight]) -> Lane:
        """The lane as it will be behind the window."""
        if not window:
            return self.lane
        return replace(self.lane, cursor=window[-1].event.seq, settled=self.lane.settled + len(window))
