"""How much a subscriber may take of us."""

import math
from dataclasses import dataclass

from crewcast.core.backoff import SECOND


@dataclass(frozen=True, slots=True)
class SenderLimits:
    """Waits are in seconds, sizes in bytes. A wait is kept to within a tenth, or a quarter of a second.

    `total` covers everything from the lookup to the last byte of the answer; the others only say how
    much of it a phase may use. `response` is the wait for the first byte of the answer. Common servers
    close an idle connection after five seconds and more; `idle` stays below. `resolve` is above the
    five seconds after which the system's resolver turns to its next server.
    """

    total: float = 30.0
    resolve: float = 10.0
    connect: float = 10.0
    tls: float = 10.0
    write: float = 10.0
    response: float = math.inf
    idle: float = 4.0
    max_idle: int = 512
    max_idle_per_origin: int = 64
    max_head: int = 32 * 1024
    max_response: int = 16 * 1024
    max_interim: int = 8

    @property
    def tick(self) -> float:
        """How often deadlines are looked at: one timer for all requests, since one for each costs 5 us."""
        return min(0.25, max(0.005, min(self.total, self.write, self.response, self.idle) / 10))


@dataclass(frozen=True, slots=True)
class DispatchLimits:
    """`lanes` held at once, `per_origin` requests in flight, `rate` requests a second for each origin (0: any number).

    `crew_wait` is in microseconds, and `lease`, for which lanes are held: it is prolonged four times within.
    """

    lanes: int = 4096
    per_origin: int = 64
    crew_wait: int = 60 * SECOND
    rate: float = 0.0
    lease: int = 60 * SECOND
