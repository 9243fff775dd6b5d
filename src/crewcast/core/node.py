"""A node: one Crewcast process, as the others and the operator see it."""

from enum import StrEnum

from msgspec import Struct


class Role(StrEnum):
    """What a node does. A node without `--roles` has all of them."""

    API = "api"  # answers HTTP
    WORKER = "worker"  # runs crews
    DISPATCHER = "dispatcher"  # delivers events


EVERY_ROLE = frozenset(Role)


class Node(Struct, frozen=True):
    """`id` is made anew at each start, `name` is for people. It is alive while `until` lies ahead: each beat
    prolongs that. `crews` are the names of those it serves, sorted. A node that `drains` finishes what it has and
    takes nothing new. `url` is where its API listens.
    """

    id: str
    name: str
    roles: tuple[Role, ...]
    version: str
    started_at: int
    seen_at: int
    until: int
    crews: tuple[str, ...] = ()
    draining: bool = False
    url: str | None = None

    def alive(self, now: int) -> bool:
        return now < self.until

    def takes(self, crew: str, now: int) -> bool:
        """Whether a queued run of that crew may be claimed by it."""
        return Role.WORKER in self.roles and crew in self.crews and not self.draining and self.alive(now)
