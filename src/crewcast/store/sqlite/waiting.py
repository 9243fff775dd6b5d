"""The verbs of `store.reviews.ReviewStore` over one SQLite file."""

from collections.abc import Sequence

from crewcast.core.event import Event
from crewcast.core.lane import Lane
from crewcast.core.review import Review
from crewcast.core.run import Run
from crewcast.store.sqlite.committer import Committer
from crewcast.store.sqlite.reader import Reader
from crewcast.store.sqlite.writes import Writes
from crewcast.store.verbs.reviews import Conclude, Decide, Remind, Stop


class Waiting:
    """The promises are told in `store.reviews`."""

    committer: Committer
    _writes: Writes
    _reader: Reader

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

    async def remind(self, review: Review, before: Run, after: Run, events: Sequence[Event]) -> bool:
        return await self.committer.put(self._writes.remind, Remind(review, before, after, events))

    async def conclude(self, before: Run, after: Run, events: Sequence[Event]) -> bool:
        return await self.committer.put(self._writes.conclude, Conclude(before, after, events))

    async def request_stop(self, run_id: str, by: str) -> Run | None:
        return await self.committer.put(self._writes.request_stop, Stop(run_id, by))
