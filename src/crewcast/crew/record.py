"""A run as its worker knows it: what the child reports, committed before it is believed."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec
from msgspec.structs import replace

from crewcast.clock import Clock
from crewcast.contract import endings, journal, terms, webhooks
from crewcast.contract.terms import ReviewTerms
from crewcast.contract.webhooks import JSON, Draft
from crewcast.core import review as reviews
from crewcast.core import run as runs
from crewcast.core.backoff import SECOND
from crewcast.core.errors import StoreError
from crewcast.core.event import Event
from crewcast.core.review import Review
from crewcast.core.review_link import ReviewLinks
from crewcast.core.run import Run, RunState
from crewcast.crew import mapping
from crewcast.store.protocol import Store, level

log = logging.getLogger("crewcast.worker")


@dataclass(frozen=True, slots=True)
class Recording:
    """What all records of a worker share. `review` is what a kickoff that says nothing of reviews has."""

    store: Store
    clock: Clock
    lease_token: str
    links: ReviewLinks
    review: Callable[[str], ReviewTerms]
    max_event_bytes: int


class Record:
    """One run under the worker's lease. `held` is False once the lease proved to be lost."""

    def __init__(
        self, shared: Recording, run: Run, kept: Mapping[str, bytes], asked: Review | None = None
    ) -> None:
        """`kept` is the run's journal so far, and `asked` its newest review."""
        self.run = run
        self.held = True
        self.paused = False
        self.asks: Review | None = None  # what its process waits for in place
        self._shared = shared
        self._clock = shared.clock
        self._meta = endings.meta_of(run)
        self._mapping = mapping.Mapping(run.id, self._meta)
        self._finished = journal.finished_tasks(kept)
        self._kept = set(self._finished)
        self._reviews = 0
        if asked is not None:
            self._reviews = asked.number
            self._mapping.stepped(asked.task_id)  # its steps were told before it was judged

    @property
    def over(self) -> bool:
        """Nothing more is taken from this child: the run has ended, waits for a person, or is not ours."""
        return self.run.state.ended or self.paused or not self.held

    @property
    def can_go_on(self) -> bool:
        """Whether another process may take the run up: every finished task is journalled, so that none is done twice.

        A flow, whose tasks are known when they begin, is taken up as it is.
        """
        return self.run.total_tasks is None or self.run.completed_tasks <= len(self._kept)

    async def take(self, messages: list[JSON], stopped_by: str | None = None) -> bool:
        """Commits what the child said; False if the run is not ours any more."""
        run, drafts, kept = self.run, list[Draft](), dict[str, bytes | None]()
        review: Review | None = None
        for message in messages:
            kept |= self._journalled(message)
            match message["op"]:
                case "started":
                    if message["tasks"] is not None:  # a flow's are not known before they begin
                        run = runs.progress(run, total_tasks=len(message["tasks"]))
                case "event":
                    # Children have their machine's clock, and deliveries are due by ours.
                    message["at"] = self._clock.of_wall(message["at"])
                    run = self._progress(run, message)
                    drafts += self._mapping.drafts(message)
                case "paused":
                    # One that was to stop does not wait for long: the worker ends it as soon as it hears.
                    run, review, told = self._paused(run, message)
                    drafts += told
                    if not message.get("in_place"):
                        break
                case "finished":
                    now = self._clock.now()
                    run, draft = endings.completed(run, message["output"], message["tasks"], self._meta, now)
                    drafts.append(draft)
                    break  # nothing of a run comes after its crew event
                case "failed":
                    run, draft = self._failed(run, message, stopped_by)
                    drafts.append(draft)
                    break
        return await self._commit(run, drafts, kept, review)

    async def fail(self, error: str, detail: str | None = None) -> None:
        """Ends the run as failed, with its one crew event."""
        if not self.over:
            now = self._clock.now()
            run, draft = endings.failed(self.run, error, self._tasks(), self._meta, now, detail)
            await self._commit(run, [draft])

    async def stop(self, by: str) -> None:
        """Ends the run as stopped."""
        if not self.over:
            run, draft = endings.stopped(self.run, by, self._tasks(), self._meta, self._clock.now())
            await self._commit(run, [draft])

    async def requeue(self, worked_until: int | None = None) -> None:
        """Gives the run back, to go on from its last finished task in a new child.

        `worked_until`: when somebody was last known to be at work on it, where that is not now.
        """
        if not self.over:
            at = self._clock.now() if worked_until is None else worked_until
            await self._commit(runs.requeue(self.run, at), [])
            self.held = False

    def _journalled(self, message: JSON) -> dict[str, bytes | None]:
        """The entries that a line brings, as they are kept."""
        entries: JSON = message.get("journal") or {}
        for name, value in entries.items():
            if told := journal.told_of(name, value):
                self._finished[told["task_id"]] = told
                self._kept.add(told["task_id"])
        return {
            name: None if value is None else msgspec.json.encode(value) for name, value in entries.items()
        }

    def _tasks(self) -> list[JSON]:
        return list(self._finished.values())

    def _progress(self, run: Run, raw: JSON) -> Run:
        task_id = raw.get("task_id")
        if raw["type"] == "task_started":
            return runs.progress(run, current_task=task_id)
        if raw["type"] == "method_execution_started":
            return runs.progress(run, current_task=raw["method"])
        if raw["type"] == "task_completed" and task_id is not None:
            self._finished[task_id] = {
                name: raw[name] for name in ("task_id", "agent", "output", "execution_time") if name in raw
            }
            return runs.progress(run, completed_tasks=len(self._finished))
        return run

    def _paused(self, run: Run, message: JSON) -> tuple[Run, Review, list[Draft]]:
        """The run as it waits, the review, and what is told: a task event and a notification."""
        now, wanted = self._clock.now(), self._review_terms()
        number, task_id, agent = self._reviews + 1, message["task_id"], message.get("agent")
        expires_at = None if wanted.timeout is None else now + wanted.timeout
        review = Review(
            run_id=run.id,
            number=number,
            task_id=task_id,
            index=message["index"],
            uuid=message["uuid"],
            agent=agent or "",
            output=message["output"],
            asked_at=now,
            expires_at=expires_at,
            default=None if expires_at is None else wanted.default,
            # A process that waits in place holds the log, and nobody else adds reminders to it.
            remind_every=None if message.get("in_place") else wanted.remind_every,
            pass_feedback=wanted.pass_feedback,
        )
        told = [
            *self._mapping.paused({**message, "at": now}),
            webhooks.task_completed(
                run.id,
                task_id,
                "awaiting_human_feedback",
                now,
                agent=agent,
                output=message["output"],
                execution_time=message.get("seconds"),
                meta=self._meta,
            ),
            webhooks.human_input(
                run.id,
                task_id,
                "requested",
                now,
                output=message["output"],
                agent=agent,
                review_url=self._shared.links.url(run.id, number),
                expires_at=expires_at,
                meta=self._meta,
            ),
        ]
        if message.get("in_place"):
            log.warning("run %s waits for a person in its own process, and keeps its place", run.id)
        else:
            run = runs.pause(run, now)
        return run, reviews.ask(review), told

    def _review_terms(self) -> ReviewTerms:
        return terms.of_run(self.run.options).review or self._shared.review(self.run.crew)

    def _failed(self, run: Run, message: JSON, stopped_by: str | None) -> tuple[Run, Draft]:
        now, tasks = self._clock.now(), message.get("tasks") or self._tasks()
        if message["kind"] == "stopped" and stopped_by is not None:
            return endings.stopped(run, stopped_by, tasks, self._meta, now)
        return endings.failed(run, _told(message), tasks, self._meta, now, message.get("traceback"))

    async def _commit(
        self,
        run: Run,
        drafts: list[Draft],
        kept: Mapping[str, bytes | None] | None = None,
        review: Review | None = None,
    ) -> bool:
        """One transaction; while the store cannot write, the child waits and nothing is lost."""
        shared = self._shared
        events = [
            webhooks.encode(draft, run.id, run.seq + n, run.attempt, shared.max_event_bytes)
            for n, draft in enumerate(drafts, 1)
        ]
        run = replace(run, seq=run.seq + len(events))
        waiting, in_doubt = asyncio.Event(), False
        while True:
            try:
                held = await shared.store.append(run, events, shared.lease_token, kept or {}, review)
                if not held and in_doubt and events:
                    held = await self._is_stored(run, events[-1])
            except StoreError as e:
                log.log(level(e), "run %s waits: its events cannot be stored: %s", run.id, e)
                in_doubt = True
                await self._clock.wait(waiting, 1 * SECOND)
            else:
                break
        if held:
            self.run = run
            if review is not None:
                self._reviews = review.number
                self.asks = review if run.state is RunState.RUNNING else None
                self.paused = self.asks is None
        else:
            self.held = False
            log.warning("run %s is not ours any more; its child is stopped", run.id)
        return held

    async def _is_stored(self, run: Run, last: Event) -> bool:
        """Whether an append that ended in an error was made all the same, and only its answer was lost."""
        stored = await self._shared.store.run(run.id)
        if stored is None or stored.seq < run.seq:
            return False
        if run.state is RunState.RUNNING and stored.lease_token != self._shared.lease_token:
            return False
        return await self._shared.store.events(run.id, last.seq - 1, 1) == [last]


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
        case "budget":
            return f"the run has used what it may: {error}"
        case _:
            return error
