"""The verbs for operators, over PostgreSQL: redelivery, origins, retention, secrets, nodes."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from crewcast.core.generation import Rotation
from crewcast.core.lane import Lane
from crewcast.core.node import Node
from crewcast.core.origin import Health
from crewcast.store import rows
from crewcast.store.nodes import PublishedCrew
from crewcast.store.postgres.connection import Database, PostgresSession
from crewcast.store.postgres.hints import Hints
from crewcast.store.postgres.keys import LockingKeys
from crewcast.store.postgres.partitions import Partitions
from crewcast.store.postgres.sweep import sweep
from crewcast.store.protocol import DeadLane, DeadLetter, Hint, OriginRow, Removal
from crewcast.store.session import Values
from crewcast.store.verbs import nodes, origins, replays, retention, secrets
from crewcast.store.verbs.nodes import Beat
from crewcast.store.verbs.origins import Reset
from crewcast.store.verbs.replays import Redeliver
from crewcast.store.verbs.retention import Expire
from crewcast.store.verbs.secrets import Bind, Rotate

R = TypeVar("R")

LARGEST = (1 << 63) - 1
LAST_TEXT = "\U0010ffff"  # no origin sorts after it


class Operating:
    """The promises are told in `store.protocol` and `store.nodes`."""

    database: Database
    hints: Hints
    _partitions: Partitions
    _let_go: Callable[[str], None]
    _all: Callable[..., Coroutine[Any, Any, list[Values]]]
    _rule: Callable[..., Coroutine[Any, Any, Any]]

    # --- redelivery -------------------------------------------------------------------------

    async def redeliver(
        self,
        run_id: str,
        *,
        now: int,
        lane: int | None = None,
        seq: int | None = None,
        dead_only: bool = False,
        since: int = 0,
        target: tuple[str, str] | None = None,
        auth: bytes | None = None,
    ) -> list[Lane]:
        if not 0 <= (lane or 0) <= LARGEST or not 0 <= (seq or 0) <= LARGEST:
            return []
        asked = Redeliver(run_id, now, lane, seq, dead_only, since if dead_only else 0, target, auth)

        async def redeliver(db: PostgresSession) -> list[Lane]:
            key = await LockingKeys(db).of(run_id)
            if not key:
                return []
            ((last_attempt,),) = await db.all("last_attempt", {})
            return await replays.redeliver(db, key, asked, last_attempt)

        made = await self.database.transaction(redeliver)
        if made:
            self.hints.tell([(Hint.EVENTS, run_id)])
        return made

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

    # --- origins ----------------------------------------------------------------------------

    async def save_origin(self, health: Health) -> None:
        await self.database.transaction(lambda db: origins.save(db, health))

    async def health(self) -> list[Health]:
        return [rows.health_from(row) for row in await self._all("health")]

    async def origins(self) -> list[OriginRow]:
        return [OriginRow(rows.health_from(row[:-2]), *row[-2:]) for row in await self._all("origins")]

    async def reset_origin(self, origin: str, now: int, limit: int = 1000) -> int:
        count = await self.database.transaction(lambda db: origins.reset(db, Reset(origin, now, limit)))
        self.hints.tell([(Hint.ORIGIN, origin)])
        return count

    # --- retention --------------------------------------------------------------------------

    async def expire(self, before: int, limit: int) -> list[str]:
        found = [run_id for (run_id,) in await self._all("expired_runs", before=before, limit=limit)]
        if not found:
            return []

        async def expire(db: PostgresSession) -> list[str]:
            ((alone,),) = await db.all("retain_one_by_one", {})
            if not alone:
                return []
            await db.write("note_expiry", {"before": before})
            return await retention.expire(db, LockingKeys(db), Expire(found, before))

        hidden = await self.database.transaction(expire)
        self._hidden(hidden)
        return hidden

    async def delete_run(self, run_id: str) -> Removal:
        removal: Removal = await self._rule(retention.hide, run_id)
        if removal is Removal.HIDDEN:
            self._hidden([run_id])
        return removal

    def _hidden(self, run_ids: Sequence[str]) -> None:
        for run_id in run_ids:
            self._let_go(run_id)
        self.hints.tell((Hint.EVENTS, run_id) for run_id in run_ids)

    async def sweep(self, limit: int) -> int:
        return await sweep(self.database, self._partitions, limit)

    # --- secrets ----------------------------------------------------------------------------

    async def rotations(self) -> list[Rotation]:
        return [Rotation(*row) for row in await self._all("rotations")]

    async def rotate(self, origin: str, now: int, until: int) -> Rotation | None:
        async def rotate(db: PostgresSession) -> Rotation | None:
            await db.all("rotate_one_by_one", {})
            return await secrets.rotate(db, Rotate(origin, now, until))

        rotation = await self.database.transaction(rotate)
        if rotation is not None:
            self.hints.tell([(Hint.ROTATED, rotation.origin)])
        return rotation

    async def key_fingerprint(self) -> bytes | None:
        found = await self._all("master_key")
        return bytes(found[0][0]) if found else None

    async def bind_key(self, fingerprint: bytes, *, replace: bool = False) -> bytes:
        return await self.database.transaction(lambda db: secrets.bind(db, Bind(fingerprint, replace)))

    # --- nodes ------------------------------------------------------------------------------

    async def time(self) -> int:
        ((now,),) = await self._all("time")
        return int(now)

    async def void_leases(self, now: int) -> None:
        await self.database.transaction(lambda db: db.write("void_leases", {"now": now}))

    async def beat(self, node: Node, crews: Mapping[str, bytes], forget_before: int) -> None:
        async def beat(db: PostgresSession) -> None:
            await nodes.beat(db, Beat(node, crews, forget_before))
            await db.write("forget_leases", {"before": forget_before})

        await self.database.transaction(beat)

    async def leave(self, node_id: str) -> None:
        await self.database.transaction(lambda db: nodes.leave(db, node_id))

    async def nodes(self) -> list[Node]:
        return [nodes.node_from(row) for row in await self._all("nodes")]

    async def published_crews(self) -> list[PublishedCrew]:
        return [PublishedCrew(*row) for row in await self._all("published_crews")]
