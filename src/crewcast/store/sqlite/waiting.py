"""The verbs of `store.reviews.ReviewStore` over one SQLite file."""

from collections.abc import Sequence

from crewcast.core.event import Event
from crewcast.core.lane import Lane
from crewcast.core.review import Review, ReviewState
from crewcast.core.run import Run
from crewcast.store import rows
from crewcast.store.sqlite.committer import Committer
from crewcast.store.sqlite.reader import Reader
from crewcast.store.sqlite.writes import Writes
from crewcast.store.verbs.reviews import Conclude, Decide, Remind, Stop


class Waiting:
    """The promises are told in `store.reviews`."""

    committer: Committer
    _writes: Writes
    _reader: Reader

    async def journal(self, run_id: str) -> dict[str, bytes]:
        return dict(await self._reader.all("journal", {"id": run_id}))

    async def review(self, run_id: str, number: int | None = None) -> Review | None:
        found = await self._reader.all("review", {"id": run_id, "number": number})
        return rows.review_from(found[0]) if found else None

    async def reviews(
        self,
        state: ReviewState | str | None = ReviewState.PENDING,
        run_id: str | None = None,
        after: int = 0,
        limit: int = 100,
    ) -> list[tuple[int, Review]]:
        word = None if state is None else str(state)
        page = {"state": word, "id": run_id, "after": after, "limit": limit}
        if run_id is not None:
            name = "reviews_of_run"
        else:
            name = "pending_reviews" if word == ReviewState.PENDING else "reviews"
        return [(row[0], rows.review_from(row[1:])) for row in await self._reader.all(name, page)]

    async def decide(
        self,
        review: Review,
        before: Run,
        after: Run,
        events: Sequence[Event],
        subscriptions: Sequence[Lane] | None = None,
    ) -> bool:
        decision = Decide(review, before, after, events, subscriptions)
        return await self.committer.put(self._writes.decide, decision)

    async def due_reviews(self, now: int, limit: int) -> list[Review]:
        found = await self._reader.all("due_reviews", {"now": now, "limit": limit})
        return [rows.review_from(row) for row in found]

    async def next_review_due(self) -> int | None:
        ((due,),) = await self._reader.all("next_review_due", {})
        return None if due is None else int(due)

    async def remind(self, review: Review, before: Run, after: Run, events: Sequence[Event]) -> bool:
        return await self.committer.put(self._writes.remind, Remind(review, before, after, events))

    async def conclude(self, before: Run, after: Run, events: Sequence[Event]) -> bool:
        return await self.committer.put(self._writes.conclude, Conclude(before, after, events))

    async def request_stop(self, run_id: str, by: str) -> Run | None:
        return await self.committer.put(self._writes.request_stop, Stop(run_id, by))

    async def stops(self, lease_token: str) -> list[str]:
        return [run_id for (run_id,) in await self._reader.all("stops", {"token": lease_token})]
