"""The project `mill`: a crew of three tasks whose model follows a script and writes down each call."""

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.server import REPOSITORY, ServerProcess

MILL = REPOSITORY / "tests" / "projects" / "mill"
TASKS = ["clean_task", "grind_task", "pack_task"]
ASKING = "grind_task"


def wait_until(condition: Callable[[], Any], within: float = 60) -> None:
    until = time.monotonic() + within
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def desk(folder: Path, asks: str = ASKING, name: str = "desk", *, in_place: bool = False) -> Path:
    """The same crew under another name, with tasks that ask a person; `in_place`: of which no other process can go on."""
    root = folder / name
    shutil.copytree(MILL, root, ignore=shutil.ignore_patterns("__pycache__"))
    file = root / "pyproject.toml"
    file.write_text(file.read_text().replace('"mill"', f'"{name}"'))
    own = "MILL_TWICE=1\n" if in_place else ""
    (root / ".env").write_text(f"MILL_ASKS={asks}\n{own}")
    return root


class Sack:
    """One run's folder. `script`: for each task what its calls do; a call that it does not name just answers."""

    def __init__(self, folder: Path, **script: list[Any]) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.follow(**script)

    def follow(self, **script: list[Any]) -> None:
        (self.folder / "script").write_text(json.dumps(script))

    @property
    def inputs(self) -> dict[str, str]:
        return {"folder": str(self.folder)}

    def weigh(self, seconds: float) -> list[Any]:
        """The line of a script that calls the tool."""
        return ["Weigh", {"folder": str(self.folder), "seconds": seconds}]

    @property
    def calls(self) -> list[str]:
        """The tasks for which the model was called, in order."""
        return [call["task"] for call in self.noted("calls")]

    @property
    def counts(self) -> dict[str, int]:
        return dict(Counter(self.calls))

    @property
    def callbacks(self) -> list[str]:
        """The tasks whose callback was called, in order."""
        return [effect["task"] for effect in self.noted("effects") if "task" in effect]

    @property
    def worker(self) -> int:
        """The process that called the model last."""
        pid: int = self.noted("calls")[-1]["pid"]
        return pid

    def go(self) -> None:
        (self.folder / "go").touch()

    def noted(self, name: str) -> list[Any]:
        file = self.folder / name
        text = file.read_text() if file.exists() else ""
        return [json.loads(line) for line in text.split("\n")[:-1]]  # the last may be half written

    def wait_for(self, task: str, n: int = 1, within: float = 60) -> None:
        """Until the model is called for the task, for the n-th time."""
        wait_until(lambda: self.calls.count(task) >= n, within)


def wait_for_state(server: ServerProcess, kickoff_id: str, *states: str, within: float = 60) -> Any:
    until = time.monotonic() + within
    while (status := server.status(kickoff_id))["state"] not in states:
        assert time.monotonic() < until, f"still {status}\n{server.text}"
        time.sleep(0.03)
    return status
