"""The projects in `examples/`, and what their READMEs say of them."""

import json
import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parents[2] / "examples"


@dataclass(frozen=True)
class Example:
    root: Path

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def pyproject(self) -> dict[str, Any]:
        return tomllib.loads((self.root / "pyproject.toml").read_text("utf-8"))

    @property
    def readme(self) -> str:
        return (self.root / "README.md").read_text("utf-8")

    def commands(self, start: str) -> list[list[str]]:
        """The commands of the README that begin so, split as a shell does."""
        return [shlex.split(line) for line in self.readme.splitlines() if line.startswith(start)]

    @property
    def inputs(self) -> dict[str, Any]:
        """Those of the README's kickoff."""
        (command,) = self.commands("crewcast kickoff")
        pairs = [word.partition("=") for word in command[2:] if not word.startswith("-")]
        return {
            name.removesuffix(":"): json.loads(value) if name.endswith(":") else value
            for name, _, value in pairs
        }

    def ignores(self, path: str) -> bool:
        """Whether the project's .gitignore names it: made by a run, or the reader's own."""
        lines = (self.root / ".gitignore").read_text("utf-8").split()
        return path in lines or any(line.endswith("/") and path.startswith(line) for line in lines)


ALL = [Example(file.parent) for file in sorted(EXAMPLES.glob("*/pyproject.toml"))]
