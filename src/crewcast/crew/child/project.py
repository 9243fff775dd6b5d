"""From a project's folder to its crew or flow, in this process."""

import importlib
import importlib.util
import inspect
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from . import advice, crews, flows
from .capture import stopped_at_kickoff
from .errors import ProjectError
from .preload import DEFAULTS
from .wire import text

# A package around modules that lie in the project's folder itself and import each other by `from .x import y`.
AROUND = "_project"


class Loaded(NamedTuple):
    """A Crew or a Flow, built and not kicked off; `defaults` are the inputs that its definition gives."""

    value: Any
    defaults: dict[str, Any]
    warnings: list[str]


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
    if project["definition"] and (root / "src").is_dir():
        # Its references to Python are to the project's package.
        source = str(root / "src")
    sys.path[:0] = [source] if source == str(root) else [source, str(root)]
    if project["module"]:
        # Where a script would look first: a project may be written as one, and lie in a package all the same.
        sys.path.append(str(_file_of(project).parent))


def load(project: dict[str, Any]) -> Loaded:
    """The project's crew or flow. Raises whatever the project raises, or ProjectError."""
    kind = project["kind"]
    if kind == "json":
        return _json_crew(Path(project["root"], project["definition"]))
    if kind == "declarative-flow":
        return Loaded(_beginning(_declarative_flow(Path(project["root"], project["definition"]))), {}, [])
    warnings: list[str] = []
    value = None
    with stopped_at_kickoff() as captured:
        if project["kind"] == "object" and not project["object"]:
            _run_script(project)
        else:
            value = _find(_import(project), project, warnings)
    if captured.value is not None:
        value = captured.value
    if value is None:
        raise ProjectError(_named(project) + " kicked off no crew and no flow.")
    if not crews.is_crew(value) and not flows.is_flow(value):
        raise ProjectError(_named(project) + " is " + _what(value) + ", no crew and no flow.")
    return Loaded(_beginning(value), {}, warnings)


def _beginning(value: Any) -> Any:
    """The value, unless it is a flow whose kickoff would do nothing."""
    if flows.is_flow(value) and not flows.begins(value):
        raise ProjectError(
            "the flow "
            + flows.name_of(value)
            + " has no method with @start, so a kickoff does nothing; CrewAI takes "
            "the methods in the class itself, none of a class that it starts from"
        )
    return value


def _load_dotenv(root: Path) -> None:
    try:
        from dotenv import load_dotenv
    except ImportError:
        return
    # Windows editors begin a file with a byte order mark.
    load_dotenv(root / ".env", override=False, encoding="utf-8-sig")


def _file_of(project: dict[str, Any]) -> Path:
    path = Path(project["root"], project["source"], *project["module"].split("."))
    return path.with_suffix(".py") if not path.is_dir() else path / "__init__.py"


def _run_script(project: dict[str, Any]) -> None:
    """Run the project's file as `python FILE` would; it is left where it kicks its crew off."""
    file = _file_of(project)
    module = ModuleType("__main__")
    module.__file__ = str(file)
    module.__package__ = project["module"].rpartition(".")[0]
    sys.modules["__main__"] = module
    sys.argv[:] = [str(file)]
    exec(compile(file.read_bytes(), str(file), "exec"), vars(module))  # noqa: S102 - the project's own code


def _import(project: dict[str, Any]) -> ModuleType:
    name = project["module"]
    if not project.get("package"):
        return importlib.import_module(name)
    around = ModuleType(AROUND)
    around.__path__ = [os.path.normpath(Path(project["root"], project["source"]))]
    sys.modules[AROUND] = around
    return importlib.import_module(AROUND + "." + name)


def _find(module: ModuleType, project: dict[str, Any], warnings: list[str]) -> Any:
    """What is served of a module: what is named outright, or the class that its kind looks for."""
    if project["object"]:
        return _made(_attribute(module, project), _named(project))
    if project["kind"] == "flow":
        return _instance(_flow_class(module, warnings), _file(module))
    crew = _crew_class(module, warnings)().crew()
    if not crews.is_crew(crew):
        raise ProjectError(
            "crew() in " + _file(module) + " returned " + type(crew).__name__ + ", not a Crew."
        )
    return crew


def _attribute(module: ModuleType, project: dict[str, Any]) -> Any:
    value: Any = module
    for part in project["object"].split("."):
        if isinstance(value, type):
            # `Trip.run`: a method of what the class makes.
            value = _instance(value, _named(project))
        try:
            value = getattr(value, part)
        except AttributeError:
            there = sorted(name for name in vars(module) if not name.startswith("_"))
            raise ProjectError(
                _file(module) + " has no " + project["object"] + "; it has: " + ", ".join(there)
            ) from None
    return value


def _made(value: Any, name: str) -> Any:
    """A crew or a flow from what makes one: a class, a method `crew()`, a function; sync or async."""
    for _ in range(4):
        if crews.is_crew(value) or flows.is_flow(value):
            return value
        if isinstance(value, type):
            value = _instance(value, name)
        elif inspect.isawaitable(value):
            import asyncio

            async def wait(awaitable: Any = value) -> Any:
                return await awaitable

            value = asyncio.run(wait())
        elif callable(getattr(value, "crew", None)):
            value = value.crew()
        elif callable(value):
            _check_arguments(value, name)
            value = value()
        else:
            break
    return value


def _instance(class_: type, name: str) -> Any:
    _check_arguments(class_, name)
    try:
        return class_()
    except Exception as error:
        fields = flows.without_default(error, class_)
        if not fields:
            raise
        raise ProjectError(
            "the state of "
            + class_.__name__
            + " in "
            + name
            + " has fields without a default: "
            + ", ".join(fields)
            + "; CrewAI makes the state before the inputs come, so each needs one"
        ) from error


def _check_arguments(function: Any, name: str) -> None:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return
    needed = [
        parameter.name
        for parameter in parameters
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if needed:
        raise ProjectError(
            name + " takes arguments (" + ", ".join(needed) + "): Crewcast serves what is made without any."
        )


def _crew_class(module: ModuleType, warnings: list[str]) -> Any:
    found = [value for value in _classes(module) if getattr(value, "is_crew_class", False)]
    return _one(module, found, "class decorated with @CrewBase", warnings)


def _flow_class(module: ModuleType, warnings: list[str]) -> Any:
    base = importlib.import_module("crewai.flow.flow").Flow
    found = [value for value in _classes(module) if issubclass(value, base) and value is not base]
    # CrewAI's own flows are imported, and its generic ones unnamed.
    found = [value for value in found if not value.__module__.startswith("crewai.")]
    found = [value for value in found if flows.acts(value)] or found
    # A module may define what its flow starts from, too.
    leaves = [
        value
        for value in found
        if not any(other is not value and issubclass(other, value) for other in found)
    ]
    return _one(module, leaves, "subclass of Flow", warnings)


def _classes(module: ModuleType) -> list[type]:
    return [value for value in vars(module).values() if isinstance(value, type)]


def _one(module: ModuleType, found: list[type], what: str, warnings: list[str]) -> type:
    # A module may import another crew's class, to start from it or to use it in a tool.
    own = [value for value in found if value.__module__ == module.__name__]
    candidates = list(dict.fromkeys(own or found))
    if not candidates:
        raise ProjectError(_file(module) + " has no " + what + ".")
    if len(candidates) > 1:
        names = ", ".join(value.__name__ for value in candidates)
        warnings.append(
            _file(module)
            + " has several: "
            + names
            + "; the first is served, another is named by MODULE:OBJECT"
        )
    return candidates[0]


def _json_crew(file: Path) -> Loaded:
    try:
        loader = importlib.import_module("crewai.project.crew_loader")
    except ImportError:
        raise ProjectError(_too_old("JSON crews")) from None
    crew, defaults = loader.load_crew(file)
    return Loaded(crew, dict(defaults or {}), [])


def _declarative_flow(file: Path) -> Any:
    flow_class = importlib.import_module("crewai.flow.flow").Flow
    if not hasattr(flow_class, "from_declaration"):
        raise ProjectError(_too_old("declarative flows"))
    return flow_class.from_declaration(path=file)


def _too_old(what: str) -> str:
    version = str(importlib.import_module("crewai").__version__)
    upgrade = advice.pip("--upgrade crewai")
    return "CrewAI " + version + " in " + sys.executable + " has no " + what + " yet: run " + upgrade + "."


def _named(project: dict[str, Any]) -> str:
    return str(project["module"]) + (":" + str(project["object"]) if project["object"] else "")


def _what(value: Any) -> str:
    return "None" if value is None else "a " + text(type(value).__name__)


def _file(module: ModuleType) -> str:
    return os.path.relpath(module.__file__) if module.__file__ else module.__name__
