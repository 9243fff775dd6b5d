"""A node among others: that it is there and what it serves, and who else is there."""

import asyncio
import logging
from collections.abc import Callable, Mapping

import msgspec
from msgspec.structs import replace

from crewcast.clock import Clock
from crewcast.contract import crews
from crewcast.contract.crews import Described
from crewcast.core.backoff import DAY, SECOND
from crewcast.core.errors import StoreError
from crewcast.core.node import Node, Role
from crewcast.store.protocol import Store, level

log = logging.getLogger("crewcast.nodes")

AGAIN = 1 * SECOND  # after an error of the store
LOOK_EVERY = 1 * SECOND
KNOWN_FOR = 1 * DAY  # a crew without a worker, and a node that lapsed


class Registry:
    """The row of this node: a beat every quarter of a lease, and one at once when something `changed`."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        node: Node,
        lease: int,
        crews: Callable[[], Mapping[str, bytes]],
        draining: Callable[[], bool],
        *,
        alone: bool = False,
    ) -> None:
        """`node` is what stays; `crews` has what this node's worker serves, as it describes it. `alone`: nobody else
        has the store.
        """
        self._store = store
        self._clock = clock
        self._node = node
        self._lease = lease
        self._crews = crews
        self._draining = draining
        self._alone = alone
        self._changed = asyncio.Event()
        self._until: int | None = None  # of the last beat

    async def run(self) -> None:
        """Until cancelled. An error of the store is waited out."""
        while True:
            pause = self._lease // 4
            self._changed.clear()
            try:
                await self.beat()
            except StoreError as e:
                log.log(level(e), "this node cannot say that it is there: %s", e)
                pause = min(pause, AGAIN)
            await self._clock.wait(self._changed, pause)

    async def beat(self) -> None:
        now, crews = self._clock.now(), self._crews()
        until = now + self._lease
        node = replace(
            self._node, seen_at=now, until=until, crews=tuple(sorted(crews)), draining=self._draining()
        )
        await self._store.beat(node, crews, now - KNOWN_FOR)
        if self._until is not None and self._until <= now and not self._alone:
            log.warning(
                "this node was away: its lease ended %.1f s ago, and others may have taken over what it had; "
                "it is back",
                (now - self._until) / SECOND,
            )
        self._until = until

    def changed(self) -> None:
        self._changed.set()

    async def clear(self) -> None:
        """Before the first beat: who had this name and lapsed is gone, and whoever is listed in a store that this node
        holds alone.
        """
        for node in await self._store.nodes():
            earlier = node.name == self._node.name and not node.alive(self._clock.now())
            if earlier or self._alone:
                await self._store.leave(node.id)

    async def leave(self) -> None:
        """At a clean stop. One that cannot say so lapses."""
        try:
            await self._store.leave(self._node.id)
        except StoreError as e:
            log.log(level(e), "this node cannot say that it leaves: %s", e)


class Directory:
    """Who is there and which crews there are, as the store had it within the last second or so."""

    def __init__(
        self, store: Store, clock: Clock, heard: Callable[["Directory"], None] = lambda _: None
    ) -> None:
        """`heard` is called after each look."""
        self._store = store
        self._clock = clock
        self._heard = heard
        self._told: dict[bytes, Described] = {}
        self.nodes: list[Node] = []
        self.crews: dict[str, Described] = {}

    async def run(self) -> None:
        """Until cancelled. An error of the store is waited out, and told once."""
        never, failing = asyncio.Event(), False
        while True:
            try:
                await self.look()
                failing = False
            except StoreError as e:
                if not failing:
                    log.log(level(e), "other nodes cannot be seen, those known stay: %s", e)
                failing = True
            await self._clock.wait(never, LOOK_EVERY)

    async def look(self) -> None:
        nodes, published = await self._store.nodes(), await self._store.published_crews()
        since = self._clock.now() - KNOWN_FOR
        found = {one.name: one.described for one in published if one.at >= since}
        told = {described: self._told.get(described) or _decoded(described) for described in found.values()}
        self._told = {described: crew for described, crew in told.items() if crew is not None}
        self.crews = {name: self._told[one] for name, one in found.items() if one in self._told}
        self.nodes = nodes
        self._heard(self)

    def takes(self, crew: str) -> bool:
        """Whether a worker that is alive takes runs of that crew."""
        now = self._clock.now()
        return any(node.takes(crew, now) for node in self.nodes)

    def holder(self, lease_token: str | None) -> str | None:
        """The name of the node whose worker holds a run by this token."""
        return next((node.name for node in self.nodes if node.id == lease_token), None)

    @property
    def dispatchers(self) -> int:
        """How many deliver."""
        now = self._clock.now()
        return sum(
            Role.DISPATCHER in node.roles and node.alive(now) and not node.draining for node in self.nodes
        )


def _decoded(described: bytes) -> Described | None:
    try:
        return crews.decode(described)
    except msgspec.DecodeError as e:
        log.debug("what a node says of a crew is not understood: %s", e)
        return None
