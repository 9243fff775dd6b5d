"""The part of `protocol.Store` for nodes that share it: who is there, what they serve, and whose clock counts."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from crewcast.core.node import Node
from crewcast.core.run import Run


class PublishedCrew(Struct, frozen=True):
    """What a worker said of a crew: `described` is its own JSON, `at` when any worker last said so."""

    name: str
    described: bytes
    at: int


class NodeStore(Protocol):
    async def time(self) -> int:
        """The store's own clock, microseconds UTC: the one that leases, due times and signatures go by."""

    # --- nodes ------------------------------------------------------------------------------

    async def beat(self, node: Node, crews: Mapping[str, bytes], forget_before: int) -> None:
        """Notes a node as it is now, `crews` (by name) as it describes them with `node.seen_at`, and forgets nodes
        whose `until`, and crews whose `at`, lies before `forget_before`: one transaction.
        """

    async def leave(self, node_id: str) -> None:
        """Forgets a node that has stopped. Its crews stay known."""

    async def nodes(self) -> list[Node]:
        """Those that have not left and were not forgotten, lapsed ones too, by name and start."""

    async def published_crews(self) -> list[PublishedCrew]:
        """By name."""

    # --- leases of runs ---------------------------------------------------------------------

    async def renew_runs(self, lease_token: str, until: int) -> list[str]:
        """Prolongs every running run that is held by `lease_token`, and says which those are.

        A run that is not among them was taken over, or has ended: its holder stops its work.
        """

    async def lapsed_runs(self, now: int, limit: int) -> Sequence[Run]:
        """Running runs whose lease has lapsed by `now`, the longest first: whoever `adopt`s one may end it."""
