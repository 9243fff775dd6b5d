"""One child at work on one run: what it says is recorded, and it is ended when it must be."""

import asyncio
import logging
import signal
from dataclasses import dataclass
from enum import Enum, auto

from crewcast.clock import Clock
from crewcast.contract.webhooks import JSON
from crewcast.core.backoff import SECOND
from crewcast.crew.host import Child
from crewcast.crew.record import Record

log = logging.getLogger("crewcast.worker")

LAST_FLUSH = 10.0  # seconds that a child may take to leave after its outcome
AFTER_TERM = 2 * SECOND  # between SIGTERM, which a crew's own code may catch, and SIGKILL
HOST_WENT_AWAY = 75  # the child's exit status when its channel or its host is gone (child/channel.py)


@dataclass(frozen=True, slots=True)
class Patience:
    """Microseconds: for a stop at the next event, for any word of the child, and of work in all. None: for ever."""

    grace: int
    stall: int | None
    timeout: int | None


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
        self.child = child
        self._clock = clock
        self._patience = patience
        self._began = began
        self._heard = began
        self._committing = False
        self._killed: Left | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._arrived: asyncio.Queue[JSON | None] = asyncio.Queue(maxsize=1000)
        self._reader = asyncio.create_task(self._read())
        self.stopped_by: str | None = None

    @property
    def in_place(self) -> bool:
        """The child lives, and waits for the decision that a person makes about its task."""
        return self._record.paused and self._record.in_place and self.child.alive

    async def go_on(self, record: Record, decision: JSON, patience: Patience, began: int) -> None:
        """Hands the decision to a child that waits in place; then `run` again."""
        record.follow(self._record)
        self._record, self._patience = record, patience
        self._began = self._heard = began
        await self.child.send({"op": "decision", **decision})

    async def run(self) -> Left:
        watching = asyncio.create_task(self._watch())
        try:
            if not await self._listen():
                return Left.DONE
            if self.in_place:
                return Left.DONE
            if self._record.over:
                # It has said how it ended; what it still flushes (traces, memories) may take a moment.
                await self.child.exit_status(LAST_FLUSH)
                return Left.DONE
            await self.child.exit_status()
            return self._killed or Left.LOST
        finally:
            watching.cancel()
            if self._stopping is not None:
                self._stopping.cancel()
            await asyncio.gather(watching, *filter(None, [self._stopping]), return_exceptions=True)
            if not self.in_place:
                await self.close()

    async def close(self) -> None:
        """Ends the child, whatever it does."""
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        self.child.kill()
        self.child.close()

    def stop(self, by: str) -> None:
        """Asks the child to stop at its next event; after a grace time it is told by signals."""
        if self.stopped_by is None:
            self.stopped_by = by
            self._stopping = asyncio.create_task(self._stop())

    def cut(self) -> None:
        """Ends the child at once: the server ends."""
        self._kill(Left.CUT)

    def beat(self) -> None:
        """The lease was prolonged."""
        self._beats = asyncio.ensure_future(self.child.send({"op": "beat"}))

    async def _stop(self) -> None:
        never = asyncio.Event()
        await self.child.send({"op": "stop", "reason": f"stopped by {self.stopped_by}"})
        await self._clock.wait(never, self._patience.grace)
        log.info("run %s does not stop by itself; its child is ended", self._record.run.id)
        self._killed = self._killed or Left.STOPPED
        self.child.send_signal(signal.SIGTERM)
        await self._clock.wait(never, AFTER_TERM)
        self.child.kill()

    def _kill(self, why: Left) -> None:
        self._killed = self._killed or why
        self.child.kill()

    async def _watch(self) -> None:
        """Ends a child that says nothing for too long, or works for too long."""
        never = asyncio.Event()
        while (until := self._until()) is not None:
            moment, why = until
            if (left := moment - self._clock.now()) > 0:
                await self._clock.wait(never, left)
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
        arrived, record = self._arrived, self._record
        while True:
            batch = [await arrived.get()]
            while not arrived.empty():
                batch.append(arrived.get_nowait())
            messages = [message for message in batch if message is not None]
            self._committing = True
            held = not messages or await record.take(messages, self.stopped_by)
            self._committing, self._heard = False, self._clock.now()
            if not held:
                return False
            for message in messages:
                if "sync" in message:
                    await self.child.send({"op": "ack", "n": message["sync"]})
            if len(messages) < len(batch) or record.over:
                return True

    async def _read(self) -> None:
        async for message in self.child.messages():
            self._heard = self._clock.now()
            await self._arrived.put(message)
        await self._arrived.put(None)


async def how_it_ended(child: Child) -> str:
    """What is said of a child that ended without a word."""
    status = await child.exit_status()
    if child.problem is not None:
        return f"the crew's process could not be started: {child.problem}"
    if status is None or status == HOST_WENT_AWAY:
        return "the crew's process was lost"
    if status >= 0:
        return f"the crew's process ended by itself (exit status {status})"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    hint = "; often the sign of too little memory" if -status == signal.SIGKILL else ""
    return f"the crew's process was killed ({name}{hint})"
