"""Reviews that nobody decides: reminders on the way, and at the deadline what was agreed for it."""

import asyncio
import logging

from msgspec.structs import replace

from crewcast.clock import Clock
from crewcast.contract import endings, webhooks
from crewcast.core import review as reviews
from crewcast.core import run as runs
from crewcast.core.backoff import SECOND
from crewcast.core.duration import show
from crewcast.core.errors import StoreError
from crewcast.core.review import Due, Review
from crewcast.core.review_link import ReviewLinks
from crewcast.core.run import Run, RunState
from crewcast.store.protocol import Store, level

log = logging.getLogger("crewcast.reviews")

POLL_EVERY = 1 * SECOND
AT_ONCE = 100


class Deadlines:
    """One per node. `run()` until cancelled; what several nodes find due, one of them does."""

    def __init__(self, store: Store, clock: Clock, links: ReviewLinks, max_event_bytes: int) -> None:
        self._store = store
        self._clock = clock
        self._links = links
        self._max_event_bytes = max_event_bytes

    async def run(self) -> None:
        """An error of the store is waited out, never fatal."""
        never = asyncio.Event()
        while True:
            pause = POLL_EVERY
            try:
                while await self.pass_once():
                    pass
                due = await self._store.next_review_due()
                if due is not None:
                    pause = min(pause, max(0, due - self._clock.now()))
            except StoreError as e:
                log.log(level(e), "reviews that are due cannot be read: %s", e)
            await self._clock.wait(never, pause)

    async def pass_once(self) -> int:
        """Does what is due by now; how much that was. What another has done meanwhile is not counted."""
        now, done = self._clock.now(), 0
        for review in await self._store.due_reviews(now, AT_ONCE):
            run = await self._store.run(review.run_id)
            if run is None:
                continue
            if reviews.due(review, now) is Due.REMINDER:
                done += await self._remind(review, run, now)
            else:
                done += await self._expire(review, run, now)
        return done

    async def _remind(self, review: Review, run: Run, now: int) -> bool:
        draft = webhooks.human_input(
            run.id,
            review.task_id,
            "reminder",
            now,
            output=review.output,
            agent=review.agent or None,
            review_url=self._links.url(run.id, review.number),
            expires_at=review.expires_at,
            meta=endings.meta_of(run),
        )
        after = replace(run, seq=run.seq + 1)
        event = webhooks.encode(draft, run.id, after.seq, run.attempt, self._max_event_bytes)
        return await self._store.remind(reviews.remind(review, now), run, after, [event])

    async def _expire(self, review: Review, run: Run, now: int) -> bool:
        after, held = reviews.expire(review, now), False
        if run.state is RunState.RUNNING:
            # Its process waits in place, and is told by its worker.
            held = await self._store.decide(after, run, run, [])
            if held and after.decision is None:
                await self._store.request_stop(run.id, f"the deadline of task {review.task_id}")
        elif after.decision is not None:
            held = await self._store.decide(after, run, runs.resume(run), [])
        else:
            kept = await self._store.journal(run.id)
            waited = show((now - review.asked_at) // SECOND * SECOND)
            error = f"nobody decided about task {review.task_id} within {waited}"
            ended, events = endings.unheld(endings.failed, run, error, kept, now, self._max_event_bytes)
            held = await self._store.decide(after, run, ended, events)
        if held:
            log.info(
                "run %s: the time for task %s is over: %s", run.id, review.task_id, after.decision or "fail"
            )
        return held
