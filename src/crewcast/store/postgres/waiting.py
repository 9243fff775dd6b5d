"""The verbs of `store.reviews.ReviewStore` over PostgreSQL."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from crewcast.core.event import Event
from crewcast.core.lane import Lane
from crewcast.core.review import Review
from crewcast.core.run import Run, RunState
from crewcast.store.hints import moved
from crewcast.store.postgres import appends
from crewcast.store.postgres.connection import Database
from crewcast.store.postgres.hints import Hints
from crewcast.store.postgres.keys import LockingKeys
from crewcast.store.postgres.session import PostgresSession
from crewcast.store.protocol import Hint
from crewcast.store.session import Values
from crewcast.store.verbs import reviews
from crewcast.store.verbs.reviews import Conclude, Decide, Remind, Stop

R = TypeVar("R")


class Waiting:
    """The promises are told in `store.reviews`."""

    database: Database
    hints: Hints
    _let_go: Callable[[str], None]

    async def _written(self, query: str, params: Mapping[str, Any]) -> list[Values]:
        """What a writing statement returned."""
        return await self.database.transaction(lambda db: db.all(query, params))

    async def _rule(self, rule: Callable[..., Coroutine[Any, Any, R]], *args: Any) -> R:
        """A rule of `store/verbs`, holding the runs that it changes."""
        return await self.database.transaction(lambda db: rule(db, LockingKeys(db), *args))

    async def _logging(self, rule: Callable[..., Coroutine[Any, Any, bool]], value: Any) -> bool:
        """A rule that moves a run which nobody holds."""

        async def work(db: PostgresSession) -> bool:
            async def log(run: Run, events: Sequence[Event], before: int) -> None:
                await appends.log(db, run, events, before)

            return await rule(db, LockingKeys(db), log, value)

        written = await self.database.transaction(work)
        if written:
            self._let_go(value.after.id)
            self.hints.tell(moved(value.after))
        return written

    async def decide(
        self,
        review: Review,
        before: Run,
        after: Run,
        events: Sequence[Event],
        subscriptions: Sequence[Lane] | None = None,
    ) -> bool:
        return await self._logging(reviews.decide, Decide(review, before, after, events, subscriptions))

    async def remind(self, review: Review, before: Run, after: Run, events: Sequence[Event]) -> bool:
        return await self._logging(reviews.remind, Remind(review, before, after, events))

    async def conclude(self, before: Run, after: Run, events: Sequence[Event]) -> bool:
        return await self._logging(reviews.conclude, Conclude(before, after, events))

    async def request_stop(self, run_id: str, by: str) -> Run | None:
        run = await self._rule(reviews.request_stop, Stop(run_id, by))
        if run is not None and run.state is RunState.RUNNING:
            self.hints.tell([(Hint.STOP, run_id)])
        return run
