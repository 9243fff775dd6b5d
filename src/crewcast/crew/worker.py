"""The worker: claims queued runs, has a child work on each, and commits what it reports."""

import asyncio
import logging
import secrets
import shutil
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from crewcast.clock import Clock
from crewcast.contract import endings, terms
from crewcast.contract.terms import ReviewTerms
from crewcast.contract.webhooks import JSON
from crewcast.core.backoff import SECOND
from crewcast.core.errors import StoreError
from crewcast.core.review_link import ReviewLinks
from crewcast.core.run import Run, RunState
from crewcast.crew.host import Child
from crewcast.crew.limits import CrewLimits, WorkerLimits
from crewcast.crew.record import Record, Recording
from crewcast.crew.served import LoadError, RunJob, ServedCrew, log_file, make_private, storage_folder
from crewcast.crew.supervision import Left, Patience, Supervision, decision_of, how_it_ended
from crewcast.store.protocol import Hint, Store, level

log = logging.getLogger("crewcast.worker")

T = TypeVar("T")

POLL_EVERY = 1 * SECOND
LAST_WRITES = 5 * SECOND
LAPSED_AT_ONCE = 100
STOPPED = "the server ended during the run"
LOST = "its worker was lost during the run"
OUT_OF_REACH = "the store was out of reach for so long that another might have had the run"
NOT_KEPT = "what its tasks made could not be kept, so they would be done again"
PENDING = "pending"  # the journal's entry of a task that waits for a decision


class Worker:
    """One per node. `run()` until cancelled; `drain()` first to let running crews finish."""

    def __init__(
        self,
        store: Store,
        crews: Mapping[str, ServedCrew],
        data: Path,
        clock: Clock,
        limits: WorkerLimits,
        links: ReviewLinks,
        review: Callable[[str], ReviewTerms] = lambda _crew: ReviewTerms(),
    ) -> None:
        """`review` has a crew's terms of a review, for a kickoff that gives none."""
        self._store = store
        self._crews = crews
        self._data = data
        self._clock = clock
        self._limits = limits
        self._lease_token = secrets.token_hex(16)
        self._working: dict[str, Run] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._supervised: dict[str, Supervision] = {}
        self._lost: set[str] = set()  # runs at work that are not ours any more
        self._taking_over: set[str] = set()
        self._shared = Recording(store, clock, self._lease_token, links, review, limits.max_event_bytes)
        self._wake = asyncio.Event()
        self._wake_stops = asyncio.Event()
        self._idle = asyncio.Event()
        self._claiming = asyncio.Lock()
        self._draining = False
        self._stopping = False
        store.listen(self._on_hint)
        for folder in (data / "logs", data / "storage"):
            make_private(folder)

    async def run(self) -> None:
        """Claims and works until cancelled. An error of the store is waited out, never fatal."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._renew(group))
            group.create_task(self._look_for_words())
            if self._limits.patience is not None:
                group.create_task(self._look_for_lapsed())
            while True:
                try:
                    await self._claim(group)
                except StoreError as e:
                    log.log(level(e), "runs cannot be claimed: %s", e)
                await self._clock.wait(self._wake, POLL_EVERY)
                self._wake.clear()

    async def drain(self, patience: int) -> None:
        """Claims nothing more; gives running crews `patience` microseconds, then ends them.

        A run that is cut is queued again, to go on from its last finished task; queued runs stay queued.
        """
        async with self._claiming:  # a claim under way may still bring runs, and these are waited for
            self._draining = True
        if not self._working:
            return
        log.info("waiting for %d running crews", len(self._working))
        if await self._clock.wait(self._idle, patience):
            return
        self._stopping = True
        for work in tuple(self._supervised.values()):
            work.cut()
        if not await self._clock.wait(self._idle, LAST_WRITES):
            log.error("%d runs could not be ended; they will be at the next start", len(self._working))

    async def recover(self) -> None:
        """What the last server of this data folder left running goes on, if it may, or ends with its one crew event."""
        for run in await self._store.running_runs():
            await self._take_over(run, STOPPED)

    @property
    def lease_token(self) -> str:
        """What its runs are held by: made anew at each start."""
        return self._lease_token

    def wake(self) -> None:
        """Looks for queued runs now: a crew has become ready."""
        self._wake.set()

    def _on_hint(self, hint: Hint, _run_id: str) -> None:
        if hint is Hint.QUEUED:
            self._wake.set()
        elif hint is Hint.STOP:
            self._wake_stops.set()

    async def _renew(self, group: asyncio.TaskGroup) -> None:
        """Keeps what is at work; whose lease is known to hold gets a beat, and nobody else."""
        never, pause = asyncio.Event(), self._limits.renew_every
        while True:
            await self._clock.wait(never, pause)
            pause = self._limits.renew_every
            # Those that were held before the question: what is claimed meanwhile is not in the answer, and what
            # commits something hears from the store itself whether it is held.
            asked = {
                run_id: task
                for run_id, task in self._tasks.items()
                if (work := self._supervised.get(run_id)) is None or work.rests
            }
            try:
                held = set(
                    await self._store.renew_runs(self._lease_token, self._clock.now() + self._limits.lease)
                )
                for run_id in held - set(self._working) - self._taking_over:
                    await self._adrift(run_id, group)
            except StoreError as e:
                log.log(level(e), "leases cannot be renewed: %s", e)
                pause = min(pause, POLL_EVERY)
                continue
            for run_id, work in self._supervised.items():
                if run_id in held:
                    work.beat()
            for run_id, task in asked.items():
                if run_id not in held and self._tasks.get(run_id) is task:
                    self._lose(run_id)

    def _lose(self, run_id: str) -> None:
        """It was taken over. One that is being started or has just ended is looked after when that is done."""
        work = self._supervised.get(run_id)
        if work is None:
            self._lost.add(run_id)
        elif work.rests:
            log.warning("run %s was taken over; its child is stopped", run_id)
            work.lose()

    async def _adrift(self, run_id: str, group: asyncio.TaskGroup) -> None:
        """A run that the store says is ours and that nobody works on: the answer to its claim was lost."""
        async with self._claiming:
            run = await self._store.run(run_id)
            ours = run is not None and run.state is RunState.RUNNING and run.lease_token == self._lease_token
            if run is None or not ours or run_id in self._working or self._draining:
                return
            if run.crew in self._crews:
                self._begin(run, group)
                return
        await self._take_over(run, LOST)

    async def _look_for_lapsed(self) -> None:
        """Takes over what workers that are gone have left, of whatever crew it is."""
        never = asyncio.Event()
        while True:
            await self._clock.wait(never, max(POLL_EVERY, self._limits.renew_every))
            if self._draining:
                continue
            try:
                for run in await self._store.lapsed_runs(self._clock.now(), LAPSED_AT_ONCE):
                    if run.lease_token != self._lease_token:
                        await self._take_over(run, LOST)
            except StoreError as e:
                log.log(level(e), "lapsed leases cannot be looked for: %s", e)

    async def _take_over(self, run: Run, reason: str) -> None:
        """A run whose holder is gone goes on, if it may, or ends with its one crew event."""
        self._taking_over.add(run.id)
        try:
            until = self._clock.now() + self._limits.lease
            if not await self._store.adopt(run, self._lease_token, until):
                return
            record, _ = await self._record(run)
            if run.stop is not None:
                await record.stop(run.stop)
            else:
                # The lease was last prolonged then; what came after was no work.
                worked_until = max(run.claimed_at or 0, (run.lease_until or 0) - self._limits.lease)
                await self._again(record, reason, self._limits.of_crew(run.crew), worked_until)
            if record.run.state.ended:
                await self._forget_storage(run.id)
        finally:
            self._taking_over.discard(run.id)

    async def _look_for_words(self) -> None:
        """Runs of ours that somebody asked to stop, at this node or at another, and what people decided about
        those whose process waits in place.
        """
        while True:
            await self._clock.wait(self._wake_stops, POLL_EVERY)
            self._wake_stops.clear()
            try:
                for run_id in await self._store.stops(self._lease_token):
                    await self._stop(run_id)
                for run_id, work in tuple(self._supervised.items()):
                    if work.asks is not None and (review := await self._store.review(run_id)) is not None:
                        await work.answer(review)
            except StoreError as e:
                log.log(level(e), "stops cannot be read: %s", e)

    async def _stop(self, run_id: str) -> None:
        run = await self._store.run(run_id)
        if run is None or run.stop is None:
            return
        if run_id in self._supervised:
            self._supervised[run_id].stop(run.stop)
        elif run.state in (RunState.QUEUED, RunState.WAITING):
            # It paused, or was given back, while somebody asked.
            kept, now = await self._store.journal(run_id), self._clock.now()
            after, events = endings.unheld(
                endings.stopped, run, run.stop, kept, now, self._limits.max_event_bytes
            )
            if await self._store.conclude(run, after, events):
                await self._forget_storage(run_id)

    async def _claim(self, group: asyncio.TaskGroup) -> None:
        async with self._claiming:
            free = self._limits.concurrent_runs - len(self._working)
            if free <= 0 or self._draining:
                return
            names = [name for name, crew in self._crews.items() if not crew.loading]
            now = self._clock.now()
            room = self._limits.room(names, self._working.values())
            per_token = self._limits.per_token
            for run in await self._store.claim_runs(
                names,
                free,
                self._lease_token,
                now,
                self._limits.lease,
                per_crew=room,
                per_token=per_token,
            ):
                self._begin(run, group)

    def _begin(self, run: Run, group: asyncio.TaskGroup) -> None:
        # One that paused or was cut may come back while its last process is still leaving.
        earlier = self._tasks.get(run.id)
        task = group.create_task(self._work(run, earlier))
        self._working[run.id] = run
        self._tasks[run.id] = task
        self._idle.clear()
        task.add_done_callback(partial(self._finished, run.id))

    def _finished(self, run_id: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(run_id) is task:
            del self._working[run_id], self._tasks[run_id]
            self._lost.discard(run_id)
        if not self._working:
            self._idle.set()
        self._wake.set()

    async def _work(self, run: Run, earlier: asyncio.Task[None] | None) -> None:
        if earlier is not None:
            await asyncio.wait([earlier])
        record, kept = await self._record(run)
        try:
            await self._supervise(record, kept)
        except Exception:
            log.exception("run %s failed inside Crewcast", run.id)
            await record.fail("internal error of Crewcast; see the server's log")
        finally:
            if record.run.state.ended:
                await self._forget_storage(run.id)

    async def _record(self, run: Run) -> tuple[Record, Mapping[str, bytes]]:
        """What is known of the run so far; waits while the store cannot be read."""
        kept = await self._patiently(run.id, lambda: self._store.journal(run.id))
        review = await self._patiently(run.id, lambda: self._store.review(run.id))
        return Record(self._shared, run, kept, review), kept

    async def _patiently(self, run_id: str, read: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await read()
            except StoreError as e:
                log.log(level(e), "run %s waits: it cannot be read: %s", run_id, e)
                await self._clock.wait(asyncio.Event(), POLL_EVERY)

    async def _supervise(self, record: Record, kept: Mapping[str, bytes]) -> None:
        run = record.run
        if run.stop is not None:  # it was given back before its worker heard of it
            await record.stop(run.stop)
            return
        storage = storage_folder(self._data, run.id)
        await asyncio.to_thread(make_private, storage)
        try:
            child = await self._crews[run.crew].start(
                RunJob(
                    run.id,
                    msgspec.json.decode(run.inputs),
                    journal={name: msgspec.json.decode(value) for name, value in kept.items()},
                    decision=await self._decision(run) if PENDING in kept else None,
                    limits=terms.of_run(run.options).limits.counted,
                    patience=self._limits.patience,
                ),
                log_file(self._data, run.id),
                storage,
            )
        except LoadError as e:
            await record.fail(f"the project did not load: {e}", e.detail)
            return
        limits = self._limits.of_crew(run.crew)
        began = run.claimed_at or self._clock.now()
        beats = self._limits.patience
        patience = Patience(
            self._limits.stop_grace,
            limits.stall,
            _left(run, limits.timeout),
            None if beats is None else int(beats * SECOND),
        )
        work = self._supervised[run.id] = Supervision(record, child, self._clock, patience, began)
        if run.id in self._lost:
            work.lose()
        elif self._stopping:
            work.cut()
        try:
            await self._conclude(record, child, work, await work.run(), limits)
        finally:
            del self._supervised[run.id]

    async def _conclude(
        self, record: Record, child: Child, work: Supervision, left: Left, limits: CrewLimits
    ) -> None:
        """What becomes of a run whose child is gone."""
        run, cut_by = record.run, STOPPED
        if left is Left.LOST and work.left_alone:
            left, cut_by = Left.CUT, OUT_OF_REACH
        match left:
            case Left.DONE:
                return
            case Left.OVERDUE:
                allowed = (run.timeout or limits.timeout or 0) / SECOND
                await record.fail(f"the run worked longer than it may ({allowed:g} s) and was ended")
            case _ if work.stopped_by is not None:
                await record.stop(work.stopped_by)
            case Left.CUT if (record.run.max_attempts or limits.attempts) > 1 and record.can_go_on:
                await record.requeue()  # however often: to be restarted is no fault of the run
            case Left.CUT:
                await self._again(record, cut_by, limits)
            case _:
                if left is Left.STALLED:
                    reason = f"the crew said nothing for {(limits.stall or 0) / SECOND:g} s and was ended"
                else:
                    reason = await how_it_ended(child)
                await self._again(record, reason, limits)

    async def _again(
        self, record: Record, reason: str, limits: CrewLimits, worked_until: int | None = None
    ) -> None:
        """A run that was cut goes on from its last finished task, as often as it may."""
        attempts = record.run.max_attempts or limits.attempts
        if not record.can_go_on:
            await record.fail(f"{reason}; the run cannot go on: {NOT_KEPT}")
        elif record.run.attempt < attempts:
            log.warning("run %s: %s; it is tried again", record.run.id, reason)
            await record.requeue(worked_until)
        else:
            tried = f" (attempt {record.run.attempt} of {attempts})" if attempts > 1 else ""
            await record.fail(reason + tried)

    async def _decision(self, run: Run) -> JSON | None:
        """What was decided about the review that is pending in the run's journal."""
        review = await self._patiently(run.id, lambda: self._store.review(run.id))
        if review is None or review.decision is None:
            return None
        return decision_of(review)

    async def _forget_storage(self, run_id: str) -> None:
        await asyncio.to_thread(shutil.rmtree, storage_folder(self._data, run_id), ignore_errors=True)


def _left(run: Run, timeout: int | None) -> int | None:
    """What is left of the run's time, over all its processes."""
    allowed = run.timeout or timeout
    return None if allowed is None else max(0, allowed - run.worked)
