"""What a Python file of a project defines, told from its text: nothing of the project runs in the server."""

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path

_STARTS = ("kickoff", "main", "run")
_KICKOFFS = frozenset({"kickoff", "kickoff_async", "akickoff", "kickoff_for_each", "kickoff_for_each_async"})
MAX_SOURCE_BYTES = 1024 * 1024


@dataclass(slots=True)
class Outline:
    """Of one module: its `@CrewBase` classes, `Flow` subclasses, names that a crew or flow is bound to, and what
    makes one without arguments (`makers` return it, `starters` kick it off); `Class.method` for methods.
    """

    crew_classes: list[str] = field(default_factory=list)
    flow_classes: list[str] = field(default_factory=list)
    started_flow: str = ""  # the one that the module itself makes, where it kicks one off
    values: list[str] = field(default_factory=list)
    makers: list[str] = field(default_factory=list)
    starters: list[str] = field(default_factory=list)
    kicks_off: bool = False  # at its top level: importing it would run it
    script: bool = False  # there, or below `if __name__ == "__main__"`
    relative: bool = False  # it imports from a package around it
    readable: bool = True

    def made_by_hand(self) -> list[str]:
        """What a crew can be had from, by name."""
        return [*self.values, *self.makers]


def outline(file: Path) -> Outline:
    """What the file defines. One that is no Python is guessed at by its words: loading it will tell the error."""
    try:
        source = file.read_bytes()[:MAX_SOURCE_BYTES]
        tree = ast.parse(source)
    except (OSError, SyntaxError, ValueError, RecursionError):
        return _guess(file)
    found = Outline()
    found.relative = any(isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(tree))
    flows: set[str] = set()
    # A script may call what it has defined above.
    kicking = _KICKOFFS | {
        node.name
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and any(_calls(part, _KICKOFFS) for part in ast.walk(node))
    }
    for statement in _top_level(tree.body):
        match statement:
            case ast.ClassDef():
                _class(statement, found, flows)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                _function(statement, statement.name, statement.args, found)
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                _value(name, value, flows, found)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                _value(name, value, flows, found)
        if not isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.kicks_off |= any(_calls(node, kicking) for node in ast.walk(statement))
    guarded = any(_is_guard(statement) for statement in tree.body)
    found.started_flow = _started_flow(tree.body, flows, found.flow_classes)
    found.script = found.kicks_off or (guarded and any(_calls(node, _KICKOFFS) for node in ast.walk(tree)))
    return found


def _started_flow(body: list[ast.stmt], flows: set[str], leaves: list[str]) -> str:
    """The one flow that is made by `kickoff()` (or `main()`, `run()`), or below `if __name__ ...`, or at the top level; else
    the one that no other makes inside.
    """
    functions = {node.name: node for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    starts: list[ast.stmt] = [functions[name] for name in _STARTS if name in functions]
    starts += [node for node in body if _is_guard(node)]
    starts += [
        node
        for node in body
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not _is_guard(node)
    ]
    for start in starts:
        made = {name for name in flows if any(_calls(node, {name}) for node in ast.walk(start))}
        if len(made) == 1:
            return made.pop()
    inner = {
        name
        for node in body
        if isinstance(node, ast.ClassDef) and node.name in flows
        for name in flows
        if name != node.name and any(_calls(part, {name}) for part in ast.walk(node))
    }
    left = [name for name in leaves if name not in inner]
    return left[0] if inner and len(left) == 1 else ""


def _guess(file: Path) -> Outline:
    try:
        text = file.read_text("utf-8", "replace")[:MAX_SOURCE_BYTES]
    except OSError:
        return Outline(readable=False)
    return Outline(
        crew_classes=re.findall(r"^@CrewBase\b[^\n]*\n\s*class\s+(\w+)", text, re.MULTILINE),
        flow_classes=re.findall(r"^class\s+(\w+)\(.*\bFlow\b", text, re.MULTILINE),
        readable=False,
    )


def _top_level(body: list[ast.stmt]) -> list[ast.stmt]:
    """The statements that an import runs, those inside `if` and `try` too; not what is for a script alone."""
    found: list[ast.stmt] = []
    for statement in body:
        match statement:
            case ast.If() if _is_guard(statement):
                found += _top_level(statement.orelse)
            case ast.If():
                found += _top_level(statement.body) + _top_level(statement.orelse)
            case ast.Try():
                found += (
                    _top_level(statement.body)
                    + _top_level(statement.orelse)
                    + _top_level(statement.finalbody)
                )
            case ast.With():
                found += _top_level(statement.body)
            case _:
                found.append(statement)
    return found


def _is_guard(statement: ast.stmt) -> bool:
    """`if __name__ == "__main__":`."""
    match statement:
        case ast.If(test=ast.Compare(left=ast.Name(id="__name__"))):
            return True
        case _:
            return False


def _class(node: ast.ClassDef, found: Outline, flows: set[str]) -> None:
    if any(_name(decorator) == "CrewBase" for decorator in node.decorator_list):
        found.crew_classes.append(node.name)
        return
    bases = {_name(base) for base in node.bases}
    if "Flow" in bases or bases & flows:
        # What another one starts from is not the one to serve.
        found.flow_classes = [name for name in found.flow_classes if name not in bases]
        found.flow_classes.append(node.name)
        flows.add(node.name)
        return
    methods = [part for part in node.body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)]
    init = next((method for method in methods if method.name == "__init__"), None)
    if init is not None and _needs_arguments(init.args, method=True):
        return
    for method in methods:
        if not method.name.startswith("_") and not _needs_arguments(method.args, method=True):
            _function(method, f"{node.name}.{method.name}", None, found)


def _function(
    node: ast.FunctionDef | ast.AsyncFunctionDef, name: str, arguments: ast.arguments | None, found: Outline
) -> None:
    if arguments is not None and _needs_arguments(arguments, method=False):
        return
    if node.name.startswith("_"):
        return
    makes = any(_calls(part, {"Crew"}) for part in ast.walk(node))
    starts = any(_calls(part, _KICKOFFS) for part in ast.walk(node))
    if starts:
        found.starters.append(name)
    elif makes or (node.returns is not None and _name(node.returns) in ("Crew", "Flow")):
        found.makers.append(name)


def _value(name: str, value: ast.expr, flows: set[str], found: Outline) -> None:
    """`crew = Crew(...)`, or an object of one of this module's flows."""
    if _calls(value, {"Crew"} | flows):
        found.values.append(name)


def _calls(node: ast.AST, names: frozenset[str] | set[str]) -> bool:
    return isinstance(node, ast.Call) and _name(node.func) in names


def _name(node: ast.expr) -> str:
    """The last name of `a.b.Name`, `Name[...]`, `Name(...)` or "Name"."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Subscript(value=inner) | ast.Call(func=inner):
            return _name(inner)
        case ast.Constant(value=str() as text):
            return text
        case _:
            return ""


def _needs_arguments(arguments: ast.arguments, *, method: bool) -> bool:
    positional = [*arguments.posonlyargs, *arguments.args]
    needed = len(positional) - len(arguments.defaults) - (1 if method and positional else 0)
    return needed > 0 or any(default is None for default in arguments.kw_defaults)
