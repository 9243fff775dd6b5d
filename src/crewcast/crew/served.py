"""A crew as it is served: its project, its host, and what is known of it."""

import asyncio
import logging
import os
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from crewcast.core.errors import UsageError
from crewcast.crew.edits import Edits
from crewcast.crew.host import Child, Host, HostUnusable
from crewcast.crew.project import Project, discover

log = logging.getLogger("crewcast.crew")


@dataclass(frozen=True, slots=True)
class Description:
    """What a crew takes and does. `inputs` are sorted names, `required` those of them that a kickoff must give,
    `only`: it takes no others; `tasks` is None for a flow, whose tasks are known when they begin; `derives_inputs`: a `@before_kickoff` may make
    some; `warnings` are sentences.
    """

    inputs: list[str] = field(default_factory=list)
    required: list[str] = field(default_factory=list)
    only: bool = False
    tasks: list[dict[str, Any]] | None = None
    derives_inputs: bool = False
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class RunJob:
    """A run for a child. `journal` is what its processes before left, `decision` what a person decided about the
    task that is pending there, `limits` what it may use in all; `patience` in seconds, as of `WorkerLimits`.
    """

    run_id: str
    inputs: dict[str, Any]
    journal: dict[str, Any] | None = None
    decision: dict[str, Any] | None = None
    limits: dict[str, int] | None = None
    patience: float | None = None


class LoadError(Exception):
    """The project cannot be loaded: its own error in a line or two, and its own traceback."""

    def __init__(self, error: str, detail: str = "") -> None:
        super().__init__(error)
        self.detail = detail


class ServedCrew:
    """One crew. `describe` loads the project in a child and remembers the answer; `start` runs it.

    With `argument` (what named the project), edits are followed: `refresh` finds and describes it anew.
    """

    def __init__(
        self, project: Project, host: Host, stub_llm: str | None = None, argument: str | None = None
    ) -> None:
        self.project = project
        self.name = project.name
        self._host = host
        self._stub_llm = stub_llm
        self._argument = argument
        self._edits = Edits(Path(project.root)) if argument is not None else None
        self._refreshing = asyncio.Lock()
        self._description: asyncio.Task[Description] | None = None
        self._told = ""

    @property
    def loading(self) -> bool:
        return self._description is None or not self._description.done()

    @property
    def load_error(self) -> LoadError | None:
        """Why the crew could not be loaded, if that is known by now."""
        task = self._description
        error = None if task is None or not task.done() or task.cancelled() else task.exception()
        return error if isinstance(error, LoadError) else None

    @property
    def known(self) -> Description | None:
        """The description if it is there already."""
        task = self._description
        if task is None or not task.done() or task.cancelled() or task.exception():
            return None
        return task.result()

    async def describe(self) -> Description:
        """The crew's inputs and tasks; waits while CrewAI loads.

        Raises LoadError. A failed load is tried again at the next call.
        """
        if self._description is None or self.load_error is not None:
            self._begin()
        assert self._description is not None
        return await asyncio.shield(self._description)

    async def refresh(self) -> bool:
        """Where edits are followed: reads the project again if its files have changed; whether they have.

        Returns once the new description or the new error is known, so that what is asked next meets it.
        """
        if self._edits is None:
            return False
        async with self._refreshing:
            if self.loading or not await asyncio.to_thread(self._edits.found):
                return False
            assert self._argument is not None
            try:
                self.project = await asyncio.to_thread(discover, self._argument)
                self._begin()
            except UsageError as e:
                self._begin(str(e))
            assert self._description is not None
            await asyncio.wait([self._description])
            return True

    async def start(self, job: RunJob, output: Path, storage: Path) -> Child:
        """A child that runs the crew, or goes on with it.

        Raises LoadError if the project or its environment cannot run.
        """
        return await self._fork(self._job("run", storage_dir=str(storage), **asdict(job)), output)

    def _begin(self, problem: str = "") -> None:
        self._description = asyncio.create_task(self._describe(problem))
        self._description.add_done_callback(self._tell)

    def _tell(self, done: asyncio.Task[Description]) -> None:
        """Says once what was found, and says it again when it is something else."""
        if done.cancelled():
            return  # the server stops
        error = done.exception()
        if error is None:
            told = _told(done.result())
            if told != self._told:
                log.info("crew %s is ready; %s", self.name, told)
                for warning in done.result().warnings:
                    log.warning("crew %s: %s", self.name, warning)
        else:
            told = str(error)
            if told != self._told:
                detail = f"\n{error.detail}" if isinstance(error, LoadError) and error.detail else ""
                log.error("crew %s cannot be loaded: %s%s", self.name, error, detail)
        self._told = told

    async def _describe(self, problem: str) -> Description:
        if problem:
            raise LoadError(problem)
        with tempfile.TemporaryDirectory(prefix="crewcast-") as folder:
            output = Path(folder, "output")
            child = await self._fork(self._job("describe", storage_dir=folder), output)
            try:
                async for message in child.messages():
                    if message["op"] == "described":
                        return _description(message)
                    if message["op"] == "failed":
                        raise LoadError(message["error"], message.get("traceback", ""))
                status = await child.exit_status()
                raise LoadError(
                    f"the project ended the process while it was loaded (exit status {status})",
                    (await asyncio.to_thread(output.read_text, errors="replace"))[-4000:],
                )
            finally:
                child.close()

    async def _fork(self, job: dict[str, Any], output: Path) -> Child:
        if self.project.problem:
            raise LoadError(self.project.problem)
        try:
            return await self._host.fork(job, output)
        except HostUnusable as e:
            raise LoadError(str(e), e.detail) from e

    def _job(self, op: str, **fields: Any) -> dict[str, Any]:
        stub = {"base_url": self._stub_llm} if self._stub_llm else None
        return {"op": op, "project": self.project.job(), "stub_llm": stub, **fields}


def _told(found: Description) -> str:
    tasks = "" if found.tasks is None else "; tasks: " + ", ".join(task["task_id"] for task in found.tasks)
    return f"inputs: {', '.join(found.inputs) or 'none'}{tasks}"


def _description(message: dict[str, Any]) -> Description:
    return Description(
        inputs=message["inputs"],
        required=message["required"],
        only=message["only"],
        tasks=message["tasks"],
        derives_inputs=message["before_kickoff"],
        warnings=message["warnings"],
    )


def storage_folder(data: Path, run_id: str) -> Path:
    """The run's own CREWAI_STORAGE_DIR: CrewAI keeps one SQLite file in it, which runs must not share."""
    return data / "storage" / run_id


def log_file(data: Path, run_id: str) -> Path:
    return data / "logs" / f"{run_id}.log"


def make_private(folder: Path) -> None:
    os.makedirs(folder, mode=0o700, exist_ok=True)  # noqa: PTH103 - `mode` for the last one is what we want
