"""A CrewAI project on disk: what it is called, of what kind it is, and where its crew or flow is made."""

import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from crewcast.core.errors import UsageError
from crewcast.crew.layouts import Outline, outline

# Folders that are no part of a project's own code.
NOT_CODE = frozenset(
    {"venv", "env", "node_modules", "site-packages", "tests", "test", "docs", "build", "dist", "__pycache__"}
)
ENTRANCES = ("main.py", "crew.py", "app.py", "run.py")
NOT_ENTRANCES = frozenset({"__init__.py", "setup.py", "conftest.py"})
MAX_FILES = 400
# Of several hand-made crews or ways to start them, the one that its author most likely means.
USUAL_NAMES = ("crew", "flow", "create_crew", "build_crew", "make_crew", "get_crew", "main", "run", "kickoff")


@dataclass(frozen=True, slots=True)
class Project:
    """`name` is how it is served. `kind`:

    - `classic`, `flow`: `module` has the class; `object`: `object` in it makes the crew, and if that is empty the module
      is run like a script up to its kickoff. `module` is imported with `source` (relative to `root`) on the path;
      `package`: as part of a package made for it, since it lies in no folder that Python could import by name.
    - `json`, `declarative-flow`: `definition` is the file, relative to `root`; `source` is on the path for what it names.
    - `unknown`: nothing is there to serve, and `problem` says why.
    """

    name: str
    root: str
    kind: str
    module: str = ""
    source: str = "."
    object: str = ""
    definition: str = ""
    package: bool = False
    problem: str = ""

    def job(self) -> dict[str, Any]:
        """What the child needs of it."""
        fields = asdict(self)
        del fields["name"]
        return fields


def discover(text: str | Path) -> Project:
    """The project that an argument names: FOLDER, FOLDER/MODULE:OBJECT, or either after `NAME=`.

    Raises UsageError with a sentence on what was looked for and what to do.
    """
    name, text = _split_name(str(text))
    path = Path(text).expanduser()
    if not path.is_dir() and (outright := _outright(text)) is not None:
        project = outright
    elif not path.is_dir():
        raise UsageError(
            f"{text} is not a folder. Name the folder of a CrewAI project (where its pyproject.toml is), "
            "or FOLDER/MODULE:OBJECT."
        )
    else:
        project = _recognise(path.resolve())
    return replace(project, name=crew_name(name)) if name else project


def unrecognised(text: str, problem: UsageError) -> Project:
    """In the place of a project that cannot be recognised, beside others that can."""
    name, path = _split_name(text)
    root = Path(path).expanduser()
    return Project(crew_name(name or root.name), str(root.resolve()), "unknown", problem=str(problem))


def likely_inputs(project: Project) -> list[str]:
    """The names in braces in the project's YAML or JSON, for an example before CrewAI has loaded and knows."""
    root, given = Path(project.root), set[str]()
    if project.kind == "json":
        files = [root / project.definition, *root.glob("agents/*.json*")]
        given = _defaults(root / project.definition)
    elif project.kind == "classic":
        files = [*Path(root, project.source, *project.module.split(".")[:-1]).glob("config/*.y*ml")]
    else:
        files = []
    found: set[str] = set()
    for file in files:
        try:
            found.update(re.findall(r"\{([A-Za-z_][A-Za-z0-9_-]*)\}", file.read_text("utf-8", "replace")))
        except OSError:
            continue
    return sorted(found - given)


def _defaults(definition: Path) -> set[str]:
    """The inputs that a JSON crew has a default for, as far as its text shows them: comments make it no JSON."""
    try:
        text = definition.read_text("utf-8", "replace")
    except OSError:
        return set()
    block = re.search(r'"inputs"\s*:\s*\{([^{}]*)\}', text)
    return set(re.findall(r'"([^"\n]+)"\s*:', block[1])) if block else set()


def crew_name(text: str) -> str:
    """The name a crew is served under: lower case, `a-z0-9_-`."""
    return re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-") or "crew"


def _split_name(text: str) -> tuple[str, str]:
    name, mark, path = text.partition("=")
    if not mark or not re.fullmatch(r"[A-Za-z0-9_-]+", name) or Path(text).exists():
        return "", text
    return name, path


def _outright(text: str) -> Project | None:
    """`FOLDER/MODULE:OBJECT`; the folder is the current one if it is left out."""
    place, mark, name = text.rpartition(":")
    folder, _, module = place.replace("\\", "/").rpartition("/")
    root = Path(folder or ("/" if place.startswith("/") else ".")).expanduser().resolve()
    module = module.removesuffix(".py")
    if not mark or not re.fullmatch(r"[A-Za-z_][\w.]*", name) or not re.fullmatch(r"[\w.-]+", module):
        return None
    if not root.is_dir():
        raise UsageError(f"{text}: there is no folder {root}")
    path = Path(*module.split(".")).with_suffix(".py")
    for source in ("src", "."):
        for file in (root / source / path, (root / source / path).with_suffix("") / "__init__.py"):
            if file.is_file():
                return _python(root, "object", file, source, outline(file), name)
    raise UsageError(f"{text}: {root} has no {path}, neither in the folder itself nor in src/")


def _recognise(root: Path) -> Project:
    settings = _pyproject(root)
    table = settings.get("tool", {})
    table = table.get("crewai", {}) if isinstance(table, dict) else {}
    table = table if isinstance(table, dict) else {}
    kind, definition = table.get("type"), table.get("definition")
    if isinstance(definition, str) and definition.strip():
        return _defined(root, kind, definition.strip())
    modules = _modules(root)
    looks: list[Callable[[], Project | None]] = [
        lambda: _by_class(root, modules, "flow", lambda found: found.flow_classes, {"main.py"}),
        lambda: _by_class(root, modules, "classic", lambda found: found.crew_classes, {"crew.py"}),
        lambda: _by_definition(root),
        lambda: _by_class(root, modules, "classic", lambda found: found.crew_classes, None),
        lambda: _by_class(root, modules, "flow", lambda found: found.flow_classes, None),
        lambda: _by_hand(root, modules, lambda found: found.made_by_hand()),
        lambda: _by_hand(root, modules, lambda found: [""] if found.kicks_off else found.starters),
        lambda: _by_hand(root, modules, lambda found: [""] if found.script else []),
        lambda: _unreadable(root, modules),
    ]
    if kind == "crew":
        # A crew that says so is none of the flows beside it,
        looks.append(looks.pop(0))
    elif kind == "flow":
        # and a flow none of its crews.
        looks.insert(1, looks.pop(4))
    for look in looks:
        if (project := look()) is not None:
            return project
    said = f" ([tool.crewai] type is {kind!r})" if kind else ""
    raise UsageError(
        f"{root} has no CrewAI project that Crewcast knows{said}: no @CrewBase class in crew.py (at the top or in "
        "src/<package>/), no Flow subclass in main.py, no crew.jsonc, no flow.yaml, no crew made in main.py. "
        "Name it outright: FOLDER/MODULE:OBJECT, such as "
        f"{root.name}/main:crew."
    )


def _defined(root: Path, kind: Any, definition: str) -> Project:
    """What `[tool.crewai] definition` names."""
    file = (root / definition).resolve()
    if not file.is_file() or not file.is_relative_to(root):
        raise UsageError(
            f"{root}: [tool.crewai] definition is {definition!r}, and there is no such file in it"
        )
    is_flow = kind == "flow" or (kind is None and file.suffix in (".yaml", ".yml"))
    return _of_definition(root, "declarative-flow" if is_flow else "json", file)


def _by_definition(root: Path) -> Project | None:
    for name in ("crew.jsonc", "crew.json"):
        if (root / name).is_file():
            return _of_definition(root, "json", root / name)
    flows = [file for pattern in ("flow.y*ml", "src/*/flow.y*ml") for file in sorted(root.glob(pattern))]
    return _of_definition(root, "declarative-flow", flows[0]) if flows else None


def _of_definition(root: Path, kind: str, file: Path) -> Project:
    """One that lies in `src/` names its tools and code as the package beside it does: from there."""
    path = file.relative_to(root)
    return _of(root, kind, definition=str(path), source="src" if path.parts[0] == "src" else ".")


@dataclass(frozen=True, slots=True)
class _Module:
    file: Path
    source: str  # the folder that is on the import path, relative to the project
    found: Outline

    @property
    def name(self) -> str:
        return self.file.name


def _modules(root: Path) -> list[_Module]:
    """The project's Python files near its top, entrances first: the order in which people look for them."""
    files = list(_python_files(root))[:MAX_FILES]
    files.sort(
        key=lambda each: ENTRANCES.index(each[0].name) if each[0].name in ENTRANCES else len(ENTRANCES)
    )
    return [_Module(file, source, outline(file)) for file, source in files]


def _python_files(root: Path) -> Iterator[tuple[Path, str]]:
    """Each with the folder that its imports start from: `src` or the project's own, or its own if it is no package."""
    for package in _folders(root / "src"):
        yield from ((file, "src") for file in _files(package))
    yield from ((file, "src") for file in _files(root / "src"))
    yield from ((file, ".") for file in _files(root))
    for folder in _folders(root):
        if folder.name != "src":
            is_package = (folder / "__init__.py").is_file()
            yield from ((file, "." if is_package else folder.name) for file in _files(folder))


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        each
        for each in folder.iterdir()
        if each.is_dir()
        and not each.name.startswith(".")
        and each.name not in NOT_CODE
        and not (each / "pyvenv.cfg").exists()
    )


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*.py") if file.name not in NOT_ENTRANCES and file.is_file())


def _by_class(
    root: Path,
    modules: list[_Module],
    kind: str,
    classes: Callable[[Outline], list[str]],
    names: set[str] | None,
) -> Project | None:
    """The one module with a class of this kind; `names` are the file names that are looked at."""
    hits = [module for module in modules if classes(module.found) and (names is None or module.name in names)]
    if not hits:
        return None
    if len(hits) > 1:
        raise _ambiguous(root, [(module, name) for module in hits for name in classes(module.found)])
    found, name = hits[0].found, ""
    if kind == "flow" and found.started_flow and found.flow_classes != [found.started_flow]:
        name = found.started_flow
    return _python(root, kind, hits[0].file, hits[0].source, found, name)


def _by_hand(root: Path, modules: list[_Module], names: Callable[[Outline], list[str]]) -> Project | None:
    """A crew that is made without CrewAI's project classes: in an entrance, or in the one file that makes one."""
    hits = [module for module in modules if names(module.found)]
    entrances = [module for module in hits if module.name in ENTRANCES]
    if not hits or (not entrances and len(hits) > 1 and names(hits[0].found) == [""]):
        return None
    module = (entrances or hits)[0]
    same = [each for each in (entrances or hits) if each.name == module.name or not entrances]
    choices = names(module.found)
    usual = [name for name in USUAL_NAMES if name in choices]
    if len(same) > 1 or (len(choices) > 1 and not usual):
        raise _ambiguous(root, [(each, name) for each in same for name in names(each.found)])
    chosen = usual[0] if usual else choices[0]
    return _python(root, "object", module.file, module.source, module.found, chosen)


def _unreadable(root: Path, modules: list[_Module]) -> Project | None:
    """A `crew.py` or `main.py` that is not Python, or a `crew.py` without a crew: loading it tells what is wrong."""
    for name, kind in (("crew.py", "classic"), ("main.py", "flow")):
        hits = [
            module
            for module in modules
            if module.name == name and (kind == "classic" or not module.found.readable)
        ]
        if len(hits) > 1:
            listed = ", ".join(str(module.file.relative_to(root)) for module in hits)
            raise UsageError(f"{root} has several {name}, and none defines a crew or flow: {listed}")
        if hits:
            return _python(root, kind, hits[0].file, hits[0].source, hits[0].found)
    return None


def _ambiguous(root: Path, choices: list[tuple[_Module, str]]) -> UsageError:
    listed = ", ".join(
        f"{root.name}/{'.'.join(_dotted(root, module.file, module.source))}:{name}"
        for module, name in choices
        if name
    )
    return UsageError(
        f"{root} has several crews or flows. Name one, or serve several side by side, each as [NAME=]FOLDER/MODULE:OBJECT: "
        f"{listed}"
    )


def _python(root: Path, kind: str, file: Path, source: str, found: Outline, name: str = "") -> Project:
    dotted = _dotted(root, file, source)
    # `from .x import y` in a file that lies in no package.
    package = found.relative and len(dotted) == 1
    return _of(root, kind, module=".".join(dotted), source=source, object=name, package=package)


def _dotted(root: Path, file: Path, source: str) -> tuple[str, ...]:
    parts = file.relative_to(root / source).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def _of(root: Path, kind: str, **fields: Any) -> Project:
    settings = _pyproject(root)
    tables = [
        settings.get("project"),
        settings.get("tool", {}).get("poetry") if _is_table(settings, "tool") else None,
    ]
    names = [
        table["name"] for table in tables if isinstance(table, dict) and isinstance(table.get("name"), str)
    ]
    return Project(crew_name(names[0] if names else root.name), str(root), kind, **fields)


def _is_table(settings: dict[str, Any], name: str) -> bool:
    return isinstance(settings.get(name), dict)


def _pyproject(root: Path) -> dict[str, Any]:
    file = root / "pyproject.toml"
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as e:
        raise UsageError(f"{file} cannot be read: {e}") from e
