"""One child at work on one run: what it says is recorded, and it is ended when it must be."""

import asyncio
import logging
import signal
from dataclasses import dataclass
from enum import Enum, auto

from crewcast.clock import Clock
from crewcast.contract.webhooks import JSON
from crewcast.core.backoff import SECOND
from crewcast.core.review import Choice, Review, ReviewState
from crewcast.crew.host import Child
from crewcast.crew.record import Record

log = logging.getLogger("crewcast.worker")

LAST_FLUSH = 10.0  # seconds that a child may take to leave after its outcome
AFTER_TERM = 2 * SECOND  # between SIGTERM, which a crew's own code may catch, and SIGKILL
HOST_WENT_AWAY = 75  # the child's exit status when its channel or its host is gone (child/channel.py)
NO_MEMORY = 71  # and when it has no memory left to say what it does


@dataclass(frozen=True, slots=True)
class Patience:
    """Microseconds: for a stop at the next event, for any word of the child, and of work in all; and those that the
    child itself waits for a beat. None: for ever.
    """

    grace: int
    stall: int | None
    timeout: int | None
    beats: int | None = None


class Left(Enum):
    """How a child that is gone left its run."""

    DONE = auto()  # ended, or waiting for a person, or not ours any more
    LOST = auto()  # it ended without a word
    STALLED = auto()
    OVERDUE = auto()
    STOPPED = auto()  # it had to be killed after `stop`
    CUT = auto()  # the server ends


class Supervision:
    """`run()` ends when the child has ended, and nothing it said is lost."""

    def __init__(self, record: Record, child: Child, clock: Clock, patience: Patience, began: int) -> None:
        self._record = record
        self._child = child
        self._clock = clock
        self._patience = patience
        self._began = began
        self._heard = began
        self._beat_at = clock.now()
        self._silent_too_long = False
        self._committing = False
        self._killed: Left | None = None
        self._stopping: asyncio.Task[None] | None = None
        self.stopped_by: str | None = None

    async def run(self) -> Left:
        watching = asyncio.create_task(self._watch())
        try:
            if not await self._listen():
                return Left.DONE
            if self._record.over:
                # It has said how it ended; what it still flushes (traces, memories) may take a moment.
                await self._child.exit_status(LAST_FLUSH)
                return Left.DONE
            await self._child.exit_status()
            return self._killed or Left.LOST
        finally:
            watching.cancel()
            if self._stopping is not None:
                self._stopping.cancel()
            await asyncio.gather(watching, *filter(None, [self._stopping]), return_exceptions=True)
            self._child.kill()
            self._child.close()

    def stop(self, by: str) -> None:
        """Asks the child to stop at its next event; after a grace time it is told by signals."""
        if self.stopped_by is None:
            self.stopped_by = by
            self._stopping = asyncio.create_task(self._stop())

    def cut(self) -> None:
        """Ends the child at once: the server ends."""
        self._kill(Left.CUT)

    def lose(self) -> None:
        """Ends the child at once: the run is not ours any more, and nothing of it is written."""
        self._record.held = False
        self._child.kill()

    def beat(self) -> None:
        """The lease was prolonged."""
        self._silent_too_long = self.left_alone
        self._beat_at = self._clock.now()
        self._beats = asyncio.ensure_future(self._child.send({"op": "beat"}))

    @property
    def rests(self) -> bool:
        """Nothing that the child said is on its way to the store, so a lease that is not found is lost."""
        return not self._committing and not self._record.over

    @property
    def left_alone(self) -> bool:
        """There was no beat for longer than the child waits for one, at any time."""
        wait = self._patience.beats
        return wait is not None and (self._silent_too_long or self._clock.now() - self._beat_at >= wait)

    async def _stop(self) -> None:
        never = asyncio.Event()
        await self._child.send({"op": "stop", "reason": f"stopped by {self.stopped_by}"})
        log.info("run %s is to stop; its child is told", self._record.run.id)
        await self._clock.wait(never, self._patience.grace)
        log.info("run %s does not stop by itself; its child is ended", self._record.run.id)
        self._killed = self._killed or Left.STOPPED
        self._child.send_signal(signal.SIGTERM)
        await self._clock.wait(never, AFTER_TERM)
        self._child.kill()

    def _kill(self, why: Left) -> None:
        self._killed = self._killed or why
        self._child.kill()

    async def answer(self, review: Review) -> None:
        """What was decided about that for which the child waits in place."""
        if self._record.asks is None or self._record.asks.number != review.number:
            return
        if review.state is ReviewState.DECIDED:
            self._record.asks = None
            # A wait for a person is no work, and no silence.
            self._heard = now = self._clock.now()
            self._began += now - review.asked_at
            await self._child.send({"op": "decision", **decision_of(review)})

    @property
    def asks(self) -> Review | None:
        return self._record.asks

    async def _watch(self) -> None:
        """Ends a child that says nothing for too long, or works for too long."""
        never = asyncio.Event()
        while (until := self._until()) is not None:
            moment, why = until
            if (left := moment - self._clock.now()) > 0:
                await self._clock.wait(never, left)
            elif self._record.asks is not None:
                await self._clock.wait(never, SECOND)
            elif not self._record.over:
                self._kill(why)
                return
            else:
                return

    def _until(self) -> tuple[int, Left] | None:
        limits = [
            (start + length, why)
            for start, length, why in (
                # What it said last may wait for the disk, and the child for that.
                (self._clock.now() if self._committing else self._heard, self._patience.stall, Left.STALLED),
                (self._began, self._patience.timeout, Left.OVERDUE),
            )
            if length is not None
        ]
        return min(limits, key=lambda limit: limit[0], default=None)

    async def _listen(self) -> bool:
        """Commits what the child reports, in batches of whatever has arrived; False if the lease is lost."""
        arrived: asyncio.Queue[JSON | None] = asyncio.Queue(maxsize=1000)
        reader = asyncio.create_task(self._read(arrived))
        record = self._record
        try:
            while True:
                batch = [await arrived.get()]
                while not arrived.empty():
                    batch.append(arrived.get_nowait())
                messages = [message for message in batch if message is not None]
                self._committing = True
                held = record.held and (not messages or await record.take(messages, self.stopped_by))
                self._committing, self._heard = False, self._clock.now()
                if not held:
                    return False
                for message in messages:
                    if "sync" in message:
                        await self._child.send({"op": "ack", "n": message["sync"]})
                if len(messages) < len(batch) or record.over:
                    return True
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _read(self, arrived: asyncio.Queue[JSON | None]) -> None:
        async for message in self._child.messages():
            self._heard = self._clock.now()
            await arrived.put(message)
        await arrived.put(None)


def decision_of(review: Review) -> JSON:
    """A decided review for the child."""
    return {
        "approve": review.decision is Choice.APPROVE,
        "feedback": review.feedback,
        "pass_feedback": review.pass_feedback,
    }


async def how_it_ended(child: Child) -> str:
    """What is said of a child that ended without a word."""
    status = await child.exit_status()
    if child.problem is not None:
        return f"the crew's process could not be started: {child.problem}"
    if status is None or status == HOST_WENT_AWAY:
        return "the crew's process was lost"
    if status == NO_MEMORY:
        return "the crew's process had no memory left (MemoryError)"
    if status >= 0:
        return f"the crew's process ended by itself (exit status {status})"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    hint = "; often the sign of too little memory" if -status == signal.SIGKILL else ""
    return f"the crew's process was killed ({name}{hint})"
