"""The worker: claims queued runs, has a child work on each, and commits what it reports."""

import asyncio
import logging
import secrets
import shutil
import signal
from collections.abc import Mapping as Crews
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
from msgspec.structs import replace

from crewcast.clock import Clock
from crewcast.contract import webhooks
from crewcast.contract.webhooks import JSON, Draft
from crewcast.core import run as runs
from crewcast.core.backoff import SECOND
from crewcast.core.errors import StoreError
from crewcast.core.run import Run, RunState
from crewcast.crew.host import Child
from crewcast.crew.mapping import Mapping
from crewcast.crew.served import LoadError, ServedCrew, log_file, make_private, storage_folder
from crewcast.store.protocol import Hint, Store, level

log = logging.getLogger("crewcast.worker")

LEASE = 60 * SECOND
RENEW_EVERY = 15 * SECOND
POLL_EVERY = 1 * SECOND
LAST_FLUSH = 10.0  # seconds that a child may take to leave after its outcome
LAST_WRITES = 5 * SECOND
HOST_WENT_AWAY = 75  # the child's exit status when its channel or its host is gone (child/channel.py)
STOPPED = "server stopped during the run"


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """`concurrent_runs` at once on this node; events over `max_event_bytes` are cut."""

    concurrent_runs: int = 16
    max_event_bytes: int = 256 * 1024


class Worker:
    """One per node. `run()` until cancelled; `drain()` first to let running crews finish."""

    def __init__(
        self, store: Store, crews: Crews[str, ServedCrew], data: Path, clock: Clock, limits: WorkerLimits
    ) -> None:
        self._store = store
        self._crews = crews
        self._data = data
        self._clock = clock
        self._limits = limits
        self._lease_token = secrets.token_hex(16)
        self._working: dict[str, asyncio.Task[None]] = {}
        self._children: dict[str, Child] = {}
        self._wake = asyncio.Event()
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
            group.create_task(self._renew())
            while True:
                try:
                    await self._claim(group)
                except StoreError as e:
                    log.log(level(e), "runs cannot be claimed: %s", e)
                await self._clock.wait(self._wake, POLL_EVERY)
                self._wake.clear()

    async def drain(self, patience: int) -> None:
        """Claims nothing more; gives running crews `patience` microseconds, then ends them.

        A run that is cut ends as failed with its one crew event. Queued runs stay queued.
        """
        async with self._claiming:  # a claim under way may still bring runs, and these are waited for
            self._draining = True
        if not self._working:
            return
        log.info("waiting for %d running crews", len(self._working))
        if await self._clock.wait(self._idle, patience):
            return
        self._stopping = True
        for child in self._children.values():
            child.kill()
        if not await self._clock.wait(self._idle, LAST_WRITES):
            log.error("%d runs could not be ended; they will be at the next start", len(self._working))

    async def recover(self) -> None:
        """What the last server of this data folder left running ends with its one crew event."""
        for run in await self._store.running_runs():
            until = self._clock.now() + LEASE
            if await self._store.adopt(run, self._lease_token, until):
                log.warning("run %s was cut by a stop of the server", run.id)
                await _Record(self, run).fail(STOPPED)
                await asyncio.to_thread(shutil.rmtree, storage_folder(self._data, run.id), ignore_errors=True)

    def wake(self) -> None:
        """Looks for queued runs now: a crew has become ready."""
        self._wake.set()

    def _on_hint(self, hint: Hint, _run_id: str) -> None:
        if hint is Hint.QUEUED:
            self._wake.set()

    async def _renew(self) -> None:
        never = asyncio.Event()
        while True:
            await self._clock.wait(never, RENEW_EVERY)
            if self._working:
                try:
                    await self._store.renew_runs(self._lease_token, self._clock.now() + LEASE)
                except StoreError as e:
                    log.log(level(e), "leases cannot be renewed: %s", e)

    async def _claim(self, group: asyncio.TaskGroup) -> None:
        async with self._claiming:
            free = self._limits.concurrent_runs - len(self._working)
            if free <= 0 or self._draining:
                return
            names = [name for name, crew in self._crews.items() if not crew.loading]
            now = self._clock.now()
            for run in await self._store.claim_runs(names, free, self._lease_token, now, LEASE):
                self._begin(run, group)

    def _begin(self, run: Run, group: asyncio.TaskGroup) -> None:
        task = group.create_task(self._work(run))
        self._working[run.id] = task
        self._idle.clear()
        task.add_done_callback(partial(self._finished, run.id))

    def _finished(self, run_id: str, _task: asyncio.Task[None]) -> None:
        del self._working[run_id]
        if not self._working:
            self._idle.set()
        self._wake.set()

    async def _work(self, run: Run) -> None:
        record = _Record(self, run)
        storage = storage_folder(self._data, run.id)
        try:
            await self._supervise(record, storage)
        except Exception:
            log.exception("run %s failed inside Crewcast", run.id)
            await record.fail("internal error of Crewcast; see the server's log")
        finally:
            await asyncio.to_thread(shutil.rmtree, storage, ignore_errors=True)

    async def _supervise(self, record: "_Record", storage: Path) -> None:
        run = record.run
        await asyncio.to_thread(make_private, storage)
        try:
            child = await self._crews[run.crew].start(
                run.id, msgspec.json.decode(run.inputs), log_file(self._data, run.id), storage
            )
        except LoadError as e:
            await record.fail(f"the project did not load: {e}", e.detail)
            return
        self._children[run.id] = child
        if self._stopping:
            child.kill()
        try:
            if await self._listen(record, child):
                if record.run.state.ended:
                    # It has said how it ended; what it still flushes (traces, memories) may take a moment.
                    await child.exit_status(LAST_FLUSH)
                else:
                    await record.fail(STOPPED if self._stopping else await _lost(child))
        finally:
            del self._children[run.id]
            child.kill()
            child.close()

    async def _listen(self, record: "_Record", child: Child) -> bool:
        """Commits what the child reports, in batches of whatever has arrived; False if the lease is lost."""
        arrived: asyncio.Queue[JSON | None] = asyncio.Queue(maxsize=1000)
        reader = asyncio.create_task(_read(child, arrived))
        try:
            while True:
                batch = [await arrived.get()]
                while not arrived.empty():
                    batch.append(arrived.get_nowait())
                messages = [message for message in batch if message is not None]
                if messages and not await record.take(messages):
                    return False
                for message in messages:
                    if "sync" in message:
                        await child.send({"op": "ack", "n": message["sync"]})
                if len(messages) < len(batch) or record.run.state.ended:
                    return True
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)


class _Record:
    """A run as its worker knows it: each change is committed before it is believed."""

    def __init__(self, worker: Worker, run: Run) -> None:
        self.run = run
        self._worker = worker
        self._store = worker._store  # noqa: SLF001 - two halves of one thing
        self._clock = worker._clock  # noqa: SLF001
        self._token = worker._lease_token  # noqa: SLF001
        self._max_event_bytes = worker._limits.max_event_bytes  # noqa: SLF001
        self._meta: JSON | None = msgspec.json.decode(run.meta) if run.meta else None
        self._mapping = Mapping(run.id, self._meta)
        self._finished_tasks: dict[str, JSON] = {}

    async def take(self, messages: list[JSON]) -> bool:
        """Commits what the child said; False if the run is not ours any more."""
        run, drafts = self.run, list[Draft]()
        for message in messages:
            match message["op"]:
                case "started":
                    if message["tasks"] is not None:  # a flow's are not known before they begin
                        run = runs.progress(run, total_tasks=len(message["tasks"]))
                case "event":
                    run = self._progress(run, message)
                    drafts += self._mapping.drafts(message)
                case "finished":
                    run, draft = self._completed(run, message)
                    drafts.append(draft)
                    break  # nothing of a run comes after its crew event
                case "failed":
                    error, detail = _told(message), message.get("traceback")
                    run, draft = self._failed(run, error, detail, message.get("tasks"))
                    drafts.append(draft)
                    break
        return await self._commit(run, drafts)

    async def fail(self, error: str, detail: str | None = None) -> None:
        """Ends the run as failed, with its one crew event."""
        if not self.run.state.ended:
            run, draft = self._failed(self.run, error, detail, None)
            await self._commit(run, [draft])

    def _progress(self, run: Run, raw: JSON) -> Run:
        task_id = raw.get("task_id")
        if raw["type"] == "task_started":
            return runs.progress(run, current_task=task_id)
        if raw["type"] == "method_execution_started":
            return runs.progress(run, current_task=raw["method"])
        if raw["type"] == "task_completed" and task_id is not None:
            self._finished_tasks[task_id] = {
                name: raw[name] for name in ("task_id", "agent", "output", "execution_time") if name in raw
            }
            return runs.progress(run, completed_tasks=len(self._finished_tasks))
        return run

    def _completed(self, run: Run, message: JSON) -> tuple[Run, Draft]:
        now = self._clock.now()
        run = runs.end(run, RunState.COMPLETED, now)
        draft = webhooks.crew_completed(
            run.id,
            "completed",
            now,
            output=message["output"],
            tasks=message["tasks"],
            execution_time=runs.seconds(run, now),
            meta=self._meta,
        )
        return run, draft

    def _failed(
        self, run: Run, error: str, detail: str | None, tasks: list[JSON] | None
    ) -> tuple[Run, Draft]:
        now = self._clock.now()
        run = runs.end(run, RunState.FAILED, now, error=error, detail=detail)
        draft = webhooks.crew_completed(
            run.id,
            "error",
            now,
            tasks=tasks or list(self._finished_tasks.values()),
            error=error,
            execution_time=runs.seconds(run, now),
            meta=self._meta,
        )
        return run, draft

    async def _commit(self, run: Run, drafts: list[Draft]) -> bool:
        """One transaction; while the store cannot write, the child waits and nothing is lost."""
        events = [
            webhooks.encode(draft, run.id, run.seq + n, run.attempt, self._max_event_bytes)
            for n, draft in enumerate(drafts, 1)
        ]
        run = replace(run, seq=run.seq + len(events))
        waiting = asyncio.Event()
        while True:
            try:
                held = await self._store.append(run, events, self._token)
            except StoreError as e:
                log.log(level(e), "run %s waits: its events cannot be stored: %s", run.id, e)
                await self._clock.wait(waiting, 1 * SECOND)
            else:
                break
        if held:
            self.run = run
        else:
            log.warning("run %s is not ours any more; its child is stopped", run.id)
        return held


def _told(message: JSON) -> str:
    """The child's failure in the words of the crew event."""
    error: str = message["error"]
    match message["kind"]:
        case "load":
            return f"the project did not load: {error}"
        case "input":
            return f"an input is missing: {error}"
        case "invalid":
            return f"an input is invalid: {error}"
        case _:
            return error


async def _lost(child: Child) -> str:
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


async def _read(child: Child, arrived: asyncio.Queue[JSON | None]) -> None:
    async for message in child.messages():
        await arrived.put(message)
    await arrived.put(None)
