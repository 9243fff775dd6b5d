"""A CrewAI project on disk: what it is called, what kind it is, and where its crew is made."""

import re
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from crewcast.core.errors import UsageError


@dataclass(frozen=True, slots=True)
class Project:
    """`module` is imported with `source` (relative to `root`) on the path; `name` is how the crew is served."""

    name: str
    root: str
    kind: str
    module: str
    source: str

    def job(self) -> dict[str, str]:
        """What the child needs of it."""
        fields = asdict(self)
        del fields["name"]
        return fields


def discover(path: Path) -> Project:
    """Recognises the project in a folder.

    Raises UsageError with a sentence on what was looked for and what to do.
    """
    root = path.expanduser().resolve()
    if not root.is_dir():
        raise UsageError(
            f"{path} is not a folder. Name the folder of a CrewAI project (where its pyproject.toml is)."
        )
    settings = _pyproject(root)
    tool = settings.get("tool", {}).get("crewai", {})
    kind = tool.get("type", "crew") if isinstance(tool, dict) else "crew"
    packages = sorted(file.parent for file in root.glob("src/*/crew.py"))
    if kind != "crew" or not packages:
        raise UsageError(
            f"{root} is not a classic CrewAI crew: no src/<package>/crew.py was found"
            + (f" and its [tool.crewai] type is {kind!r}" if kind != "crew" else "")
            + ". Crewcast serves projects as `crewai create crew NAME --classic` makes them."
        )
    if len(packages) > 1:
        names = ", ".join(folder.name for folder in packages)
        raise UsageError(
            f"{root} has a crew.py in several packages under src/: {names}. Keep one per project."
        )
    name = settings.get("project", {}).get("name") or root.name
    return Project(crew_name(str(name)), str(root), "classic", f"{packages[0].name}.crew", "src")


def likely_inputs(project: Project) -> list[str]:
    """The names in braces in the project's YAML, for an example before CrewAI has loaded and knows."""
    package = Path(project.root, project.source, *project.module.split(".")[:-1])
    found: set[str] = set()
    for file in package.glob("config/*.y*ml"):
        try:
            found.update(re.findall(r"\{([A-Za-z_][A-Za-z0-9_-]*)\}", file.read_text("utf-8", "replace")))
        except OSError:
            continue
    return sorted(found)


def crew_name(text: str) -> str:
    """The name a crew is served under: lower case, `a-z0-9_-`."""
    return re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-") or "crew"


def _pyproject(root: Path) -> dict[str, Any]:
    file = root / "pyproject.toml"
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as e:
        raise UsageError(f"{file} cannot be read: {e}") from e
