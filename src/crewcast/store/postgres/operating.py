"""The verbs for operators, over PostgreSQL: redelivery, origins, retention, secrets, nodes."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from crewcast.core.generation import Rotation
from crewcast.core.lane import Lane
from crewcast.core.node import Node
from crewcast.core.origin import Health
from crewcast.store.postgres.connection import Database
from crewcast.store.postgres.hints import Hints
from crewcast.store.postgres.keys import LockingKeys
from crewcast.store.postgres.partitions import Partitions
from crewcast.store.postgres.session import PostgresSession
from crewcast.store.postgres.sweep import sweep
from crewcast.store.protocol import Hint, Removal
from crewcast.store.session import Values
from crewcast.store.verbs import nodes, origins, replays, retention, secrets
from crewcast.store.verbs.nodes import Beat
from crewcast.store.verbs.origins import Reset
from crewcast.store.verbs.replays import Redeliver
from crewcast.store.verbs.retention import Expire
from crewcast.store.verbs.secrets import Bind, Rotate

R = TypeVar("R")


class Operating:
    """The promises are told in `store.protocol` and `store.nodes`."""

    database: Database
    hints: Hints
    _partitions: Partitions
    _let_go: Callable[[str], None]
    _stale: Callable[[], None]
    _all: Callable[..., Coroutine[Any, Any, Sequence[Values]]]
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
        asked = Redeliver(run_id, now, lane, seq, dead_only, since, target, auth)

        async def redeliver(db: PostgresSession) -> list[Lane]:
            key = await LockingKeys(db).of(run_id)
            if not key:
                return []
            ((last_attempt,),) = await db.all("last_attempt", {})
            return await replays.redeliver(db, key, asked, last_attempt)

        made = await self.database.transaction(redeliver)
        if made:
            self._stale()
            self.hints.tell([(Hint.EVENTS, run_id)])
        return made

    # --- origins ----------------------------------------------------------------------------

    async def save_origin(self, health: Health) -> None:
        await self.database.transaction(lambda db: origins.save(db, health))

    async def reset_origin(self, origin: str, now: int, limit: int = 1000) -> int:
        count = await self.database.transaction(lambda db: origins.reset(db, Reset(origin, now, limit)))
        self._stale()
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

    async def rotate(self, origin: str, now: int, until: int) -> Rotation | None:
        async def rotate(db: PostgresSession) -> Rotation | None:
            await db.all("rotate_one_by_one", {})
            return await secrets.rotate(db, Rotate(origin, now, until))

        rotation = await self.database.transaction(rotate)
        if rotation is not None:
            self.hints.tell([(Hint.ROTATED, rotation.origin)])
        return rotation

    async def bind_key(self, fingerprint: bytes, *, replace: bool = False) -> bytes:
        return await self.database.transaction(lambda db: secrets.bind(db, Bind(fingerprint, replace)))

    # --- nodes ------------------------------------------------------------------------------

    async def time(self) -> int:
        ((now,),) = await self._all("time")
        return int(now)

    async def void_leases(self, now: int) -> None:
        await self.database.transaction(lambda db: db.write("void_leases", {"now": now}))
        self._stale()

    async def beat(self, node: Node, crews: Mapping[str, bytes], forget_before: int) -> None:
        async def beat(db: PostgresSession) -> None:
            await nodes.beat(db, Beat(node, crews, forget_before))
            await db.write("forget_leases", {"before": forget_before})
            await db.write("forget_commits", {"before": forget_before})

        await self.database.transaction(beat)

    async def leave(self, node_id: str) -> None:
        await self.database.transaction(lambda db: nodes.leave(db, node_id))
