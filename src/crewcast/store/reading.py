"""The verbs that only read: one for both engines, over their named queries."""

import json
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from crewcast.core.event import Channel, Event
from crewcast.core.generation import Rotation
from crewcast.core.lane import Attempt, Lane
from crewcast.core.node import Node
from crewcast.core.origin import Health
from crewcast.core.review import Review, ReviewState
from crewcast.core.run import Run
from crewcast.store import rows
from crewcast.store.nodes import PublishedCrew
from crewcast.store.protocol import KEYS_KEPT_FOR, Created, DeadLane, DeadLetter, IdempotencyKey, OriginRow
from crewcast.store.session import Values
from crewcast.store.verbs.claims import LOOK
from crewcast.store.verbs.nodes import node_from

LAST_TEXT = "\U0010ffff"  # no origin sorts after it


class Reading:
    """The promises are told in `store.protocol`, `store.reviews` and `store.nodes`."""

    # The rows of a named query: a snapshot of everything that was committed before it began.
    _all: Callable[..., Coroutine[Any, Any, Sequence[Values]]]

    # --- runs -----------------------------------------------------------------------------------

    async def earlier(self, key: IdempotencyKey, now: int) -> Created | None:
        found = await self._all("remembered_key", token=key.token, key=key.key, since=now - KEYS_KEPT_FOR)
        if not found:
            return None
        return rows.created_from(found[0], key)

    async def run(self, run_id: str) -> Run | None:
        found = await self._all("run", id=run_id)
        return rows.run_from(found[0]) if found else None

    async def running_runs(self) -> list[Run]:
        return [rows.run_from(row) for row in await self._all("running_runs")]

    async def lapsed_runs(self, now: int, limit: int) -> list[Run]:
        return [rows.run_from(row) for row in await self._all("lapsed_runs", now=now, limit=limit)]

    async def events(
        self, run_id: str, after: int = 0, limit: int = 100, channels: Channel | None = None
    ) -> list[Event]:
        # Never from a tail in memory, which hears of a commit a moment later: who has read that a run has ended finds
        # its last event.
        wanted = -1 if channels is None else int(channels)
        found = await self._all("events", id=run_id, after=after, limit=limit, channels=wanted)
        return [rows.event_from(row) for row in found]

    async def last_event(self, run_id: str, channel: Channel) -> Event | None:
        found = await self._all("last_event", id=run_id, channel=int(channel))
        return rows.event_from(found[0]) if found else None

    # --- lanes ----------------------------------------------------------------------------------

    async def lanes(self, run_id: str) -> list[Lane]:
        return [rows.lane_from(row) for row in await self._all("lanes", id=run_id)]

    async def attempts(self, run_id: str, after: int = 0, limit: int = 1000) -> list[tuple[int, Attempt]]:
        found = await self._all("attempts", id=run_id, after=after, limit=limit)
        return [rows.attempt_from(row) for row in found]

    async def dead_letters(self, run_id: str) -> list[DeadLetter]:
        return [rows.dead_letter_from(row) for row in await self._all("dead_letters", id=run_id)]

    async def pending_beside(self, lane: Lane) -> int:
        which = {"id": lane.run_id, "number": lane.number, "origin": lane.origin}
        ((count,),) = await self._all("pending_beside", **which)
        return int(count)

    async def next_due(self, busy: Sequence[str] = ()) -> int | None:
        if busy:
            ((due,),) = await self._all("next_due_elsewhere", look=LOOK, busy=json.dumps(list(busy)))
        else:
            ((due,),) = await self._all("next_due")
        return None if due is None else int(due)

    # --- redelivery -----------------------------------------------------------------------------

    async def undelivered(
        self,
        origin: str | None = None,
        run_id: str | None = None,
        since: int = 0,
        after: int = 0,
        limit: int = 100,
    ) -> list[DeadLetter]:
        page = {"origin": origin, "id": run_id, "since": since, "after": after, "limit": limit}
        if run_id is not None:
            name = "undelivered_of_run"
        else:
            name = "undelivered" if origin is None else "undelivered_of_origin"
        return [rows.dead_letter_from(row) for row in await self._all(name, **page)]

    async def dead_lanes(
        self, origin: str | None, since: int, after: tuple[str, int, int] | None, limit: int
    ) -> list[DeadLane]:
        place = after or (origin or "", 0, 0)
        page = dict(zip(("origin", "run", "lane"), place, strict=True))
        page |= {"since": since, "limit": limit, "last": LAST_TEXT if origin is None else origin}
        return [
            DeadLane(run_id, lane, count, (url_origin, run, lane))
            for run_id, lane, count, url_origin, run in await self._all("dead_lanes", **page)
        ]

    # --- origins and secrets --------------------------------------------------------------------

    async def health(self) -> list[Health]:
        return [rows.health_from(row) for row in await self._all("health")]

    async def origins(self) -> list[OriginRow]:
        return [OriginRow(rows.health_from(row[:-2]), *row[-2:]) for row in await self._all("origins")]

    async def rotations(self) -> list[Rotation]:
        return [Rotation(*row) for row in await self._all("rotations")]

    async def key_fingerprint(self) -> bytes | None:
        found = await self._all("master_key")
        return bytes(found[0][0]) if found else None

    # --- reviews --------------------------------------------------------------------------------

    async def journal(self, run_id: str) -> dict[str, bytes]:
        return dict(await self._all("journal", id=run_id))

    async def review(self, run_id: str, number: int | None = None) -> Review | None:
        found = await self._all("review", id=run_id, number=number)
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
        return [(row[0], rows.review_from(row[1:])) for row in await self._all(name, **page)]

    async def due_reviews(self, now: int, limit: int) -> list[Review]:
        return [rows.review_from(row) for row in await self._all("due_reviews", now=now, limit=limit)]

    async def next_review_due(self) -> int | None:
        ((due,),) = await self._all("next_review_due")
        return None if due is None else int(due)

    async def stops(self, lease_token: str) -> list[str]:
        return [run_id for (run_id,) in await self._all("stops", token=lease_token)]

    # --- nodes ----------------------------------------------------------------------------------

    async def nodes(self) -> list[Node]:
        return [node_from(row) for row in await self._all("nodes")]

    async def published_crews(self) -> list[PublishedCrew]:
        return [PublishedCrew(*row) for row in await self._all("published_crews")]
