"""The verbs of `store.nodes.NodeStore` over one SQLite file, which one node holds alone."""

import time
from collections.abc import Mapping

from crewcast.core.node import Node
from crewcast.store.sqlite.committer import Committer
from crewcast.store.sqlite.reader import Reader
from crewcast.store.sqlite.writes import Renew, Writes
from crewcast.store.verbs.nodes import Beat


class Sharing:
    """The promises are told in `store.nodes`."""

    committer: Committer
    _writes: Writes
    _reader: Reader

    async def time(self) -> int:
        return time.time_ns() // 1000

    async def beat(self, node: Node, crews: Mapping[str, bytes], forget_before: int) -> None:
        await self.committer.put(self._writes.beat, Beat(node, crews, forget_before))

    async def leave(self, node_id: str) -> None:
        await self.committer.put(self._writes.leave, node_id)

    async def renew_runs(self, lease_token: str, until: int) -> list[str]:
        return await self.committer.put(self._writes.renew_runs, Renew(lease_token, until))
