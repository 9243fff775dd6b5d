"""The crews that a node answers for: its own, and those of which workers on other nodes have told."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from crewcast.api.app import CrewView
from crewcast.contract.crews import Described
from crewcast.contract.kickoff import CrewInputs
from crewcast.contract.problem import Problem
from crewcast.crew.served import Description, LoadError, ServedCrew
from crewcast.nodes import Directory

NO_WORKER = "no worker"


class Crews(Mapping[str, CrewView]):
    """By name: this node's own, as it serves them, then those that the directory knows."""

    def __init__(
        self,
        own: Mapping[str, ServedCrew],
        directory: Directory | None,
        draining: Callable[[], bool] = lambda: False,
    ) -> None:
        """`draining`: whether this node takes nothing new any more."""
        self._directory = directory
        self._draining = draining
        self._own = {name: of_served(crew, partial(self.has_worker, name)) for name, crew in own.items()}

    def __getitem__(self, name: str) -> CrewView:
        if name in self._own:
            return self._own[name]
        return of_told(name, self._told[name], partial(self.has_worker, name))

    def __iter__(self) -> Iterator[str]:
        yield from self._own
        yield from (name for name in self._told if name not in self._own)

    def __len__(self) -> int:
        return len(set(self._own) | set(self._told))

    def has_worker(self, name: str) -> bool:
        """Whether somebody who is there takes runs of that crew."""
        if name in self._own and not self._draining():
            return True
        return self._directory is not None and self._directory.takes(name)

    @property
    def _told(self) -> Mapping[str, Described]:
        return {} if self._directory is None else self._directory.crews


def of_served(crew: ServedCrew, has_worker: Callable[[], bool]) -> CrewView:
    async def inputs() -> CrewInputs:
        await crew.refresh()
        try:
            return _inputs(await crew.describe())
        except LoadError as e:
            raise _not_loadable(str(e), {"project": crew.project.root, "traceback": e.detail}) from e

    def known() -> CrewInputs | None:
        return None if crew.known is None else _inputs(crew.known)

    def state() -> str:
        if not has_worker():
            return NO_WORKER
        if crew.loading:
            return "loading"
        return "ready" if crew.known is not None else "not loadable"

    return CrewView(
        name=crew.name,
        kind=lambda: crew.project.kind,
        inputs=inputs,
        known=known,
        refresh=crew.refresh,
        tasks=lambda: None if crew.known is None else _tasks(crew.known),
        state=state,
        error=lambda: None if crew.load_error is None else str(crew.load_error),
        warnings=lambda: [] if crew.known is None else crew.known.warnings,
    )


def of_told(name: str, told: Described, has_worker: Callable[[], bool]) -> CrewView:
    """A crew of other nodes, as one of them described it last."""

    async def inputs() -> CrewInputs:
        if told.takes is None:
            raise _not_loadable(told.error or "", {})
        return told.takes

    async def refresh() -> bool:
        return False

    def state() -> str:
        if not has_worker():
            return NO_WORKER
        return "ready" if told.error is None else "not loadable"

    return CrewView(
        name=name,
        kind=lambda: told.kind,
        inputs=inputs,
        known=lambda: told.takes,
        refresh=refresh,
        tasks=lambda: told.tasks,
        state=state,
        error=lambda: told.error,
        warnings=lambda: told.warnings,
    )


def told_of(crews: Mapping[str, ServedCrew]) -> dict[str, bytes]:
    """What this node tells the others: of each crew of which a run may be claimed here."""
    return {name: _described(crew).encode() for name, crew in crews.items() if not crew.loading}


def _described(crew: ServedCrew) -> Described:
    found = crew.known
    if found is None:
        return Described(crew.project.kind, error=str(crew.load_error or "it was not described"))
    takes = _inputs(found)
    return Described(
        kind=crew.project.kind,
        inputs=list(takes.names),
        required=list(takes.required),
        only=takes.only,
        derives=takes.derives,
        prompts=takes.prompts,
        tasks=_tasks(found),
        warnings=found.warnings,
    )


def _not_loadable(error: str, more: dict[str, str]) -> Problem:
    return Problem(500, "Project Not Loadable", f"The project cannot be loaded: {error}", more)


def _inputs(found: Description) -> CrewInputs:
    return CrewInputs(
        found.inputs,
        found.required,
        only=found.only,
        derives=found.derives_inputs,
        prompts=found.tasks is not None,
    )


def _tasks(found: Description) -> list[str] | None:
    return None if found.tasks is None else [task["task_id"] for task in found.tasks]
