"""A crew as it is served: its project, its host, and what is known of it."""

import asyncio
import logging
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crewcast.crew.host import Child, Host, HostUnusable
from crewcast.crew.project import Project

log = logging.getLogger("crewcast.crew")


@dataclass(frozen=True, slots=True)
class Description:
    """What a crew needs and does. `inputs` are sorted names; `derives_inputs`: a `@before_kickoff` may make some."""

    inputs: list[str] = field(default_factory=list)
    tasks: list[dict[str, Any]] = field(default_factory=list)
    derives_inputs: bool = False


class LoadError(Exception):
    """The project cannot be loaded: its own error in a line or two, and its own traceback."""

    def __init__(self, error: str, detail: str = "") -> None:
        super().__init__(error)
        self.detail = detail


class ServedCrew:
    """One crew. `describe` loads the project in a child and remembers the answer; `start` runs it."""

    def __init__(self, project: Project, host: Host, stub_llm: str | None = None) -> None:
        self.project = project
        self.name = project.name
        self._host = host
        self._stub_llm = stub_llm
        self._description: asyncio.Task[Description] | None = None

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
            self._description = asyncio.create_task(self._describe())
            # A server that stops meanwhile asks no more: that is no warning.
            self._description.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(self._description)

    async def start(self, run_id: str, inputs: dict[str, Any], output: Path, storage: Path) -> Child:
        """A child that runs the crew.

        Raises LoadError if the environment cannot run crews.
        """
        job = self._job("run", run_id=run_id, inputs=inputs, storage_dir=str(storage))
        return await self._fork(job, output)

    async def _describe(self) -> Description:
        with tempfile.TemporaryDirectory(prefix="crewcast-") as folder:
            output = Path(folder, "output")
            child = await self._fork(self._job("describe", storage_dir=folder), output)
            try:
                async for message in child.messages():
                    if message["op"] == "described":
                        return Description(message["inputs"], message["tasks"], message["before_kickoff"])
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
        try:
            return await self._host.fork(job, output)
        except HostUnusable as e:
            raise LoadError(str(e), e.detail) from e

    def _job(self, op: str, **fields: Any) -> dict[str, Any]:
        stub = {"base_url": self._stub_llm} if self._stub_llm else None
        return {"op": op, "project": self.project.job(), "stub_llm": stub, **fields}


def storage_folder(data: Path, run_id: str) -> Path:
    """The run's own CREWAI_STORAGE_DIR: CrewAI keeps one SQLite file in it, which runs must not share."""
    return data / "storage" / run_id


def log_file(data: Path, run_id: str) -> Path:
    return data / "logs" / f"{run_id}.log"


def make_private(folder: Path) -> None:
    os.makedirs(folder, mode=0o700, exist_ok=True)  # noqa: PTH103 - `mode` for the last one is what we want
