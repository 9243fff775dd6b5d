"""From a project's folder to its crew, in this process."""

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import ProjectError
from .preload import DEFAULTS


def enter(project: dict[str, Any], storage_dir: str | None) -> None:
    """Make this process the project's: its folder, its environment, its import path."""
    root = Path(project["root"])
    os.chdir(root)
    _load_dotenv(root)
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    if storage_dir is not None:
        os.environ["CREWAI_STORAGE_DIR"] = storage_dir
    source = os.path.normpath(root / project["source"])
    sys.path[:0] = [source] if source == str(root) else [source, str(root)]


def load_crew(project: dict[str, Any]) -> Any:
    """The project's crew, built and not kicked off. Raises whatever the project raises."""
    if project["kind"] != "classic":
        raise ProjectError(
            "This release of Crewcast cannot load a project of kind '" + str(project["kind"]) + "'."
        )
    module = importlib.import_module(project["module"])
    crew = _crew_class(module)().crew()
    if not hasattr(crew, "kickoff") or not hasattr(crew, "tasks"):
        raise ProjectError(
            "crew() in " + _file(module) + " returned " + type(crew).__name__ + ", not a Crew."
        )
    return crew


def _load_dotenv(root: Path) -> None:
    try:
        from dotenv import load_dotenv
    except ImportError:
        return
    load_dotenv(root / ".env", override=False)


def _crew_class(module: ModuleType) -> Any:
    marked = [value for value in vars(module).values() if isinstance(value, type) and _is_crew_class(value)]
    # A module may import another crew's class, to start from it or to use it in a tool.
    own = [value for value in marked if value.__module__ == module.__name__]
    for crew_class in own + marked:
        return crew_class
    raise ProjectError(_file(module) + " has no class decorated with @CrewBase.")


def _is_crew_class(value: type) -> bool:
    return bool(getattr(value, "is_crew_class", False))


def _file(module: ModuleType) -> str:
    return os.path.relpath(module.__file__) if module.__file__ else module.__name__
