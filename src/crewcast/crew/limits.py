"""How much a worker takes on, and how long it waits."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from crewcast.core.backoff import SECOND
from crewcast.core.run import Run


@dataclass(frozen=True, slots=True)
class CrewLimits:
    """How a crew is served. `attempts` counts the tries of a run that is cut by a crash, the first included.

    Microseconds, None for ever: `stall` without a word of the child, `timeout` of work in all. `runs`: at once.
    """

    attempts: int = 2
    stall: int | None = None
    timeout: int | None = None
    runs: int | None = None


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """`concurrent_runs` at once on this node; events over `max_event_bytes` are cut. `crews` has those crews that
    are served otherwise than `crew` says. `per_token`: runs of one token at once.

    `lease`: microseconds for which runs are held, prolonged four times within. `patience`: seconds without a sign of
    that after which a child stops by itself; None where nobody else could take the run over.
    """

    concurrent_runs: int = 16
    max_event_bytes: int = 256 * 1024
    per_token: int | None = None
    crew: CrewLimits = CrewLimits()
    crews: Mapping[str, CrewLimits] = field(default_factory=dict)
    stop_grace: int = 10 * SECOND
    lease: int = 60 * SECOND
    patience: float | None = None

    @property
    def renew_every(self) -> int:
        return self.lease // 4

    def of_crew(self, name: str) -> CrewLimits:
        return self.crews.get(name, self.crew)

    def room(self, names: Iterable[str], working: Iterable[Run]) -> dict[str, int]:
        """How many runs more of those crews that may have so many at once and no more."""
        room = {name: most for name in names if (most := self.of_crew(name).runs) is not None}
        for run in working:
            if run.crew in room:
                room[run.crew] -= 1
        return {name: max(0, left) for name, left in room.items()}
