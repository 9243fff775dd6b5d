"""From a folder to a crew, where CrewAI itself has not what it takes."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from crewcast.crew.child import project
from crewcast.crew.child.errors import ProjectError


def module(name: str, **names: object) -> ModuleType:
    made = ModuleType(name)
    vars(made).update(names)
    return made


@pytest.mark.parametrize(
    ("pip", "command"),
    [(True, "{} -m pip install --upgrade crewai"), (False, "uv pip install --python {} --upgrade crewai")],
    ids=["pip", "no pip"],
)
@pytest.mark.parametrize(
    ("kind", "what"), [("json", "JSON crews"), ("declarative-flow", "declarative flows")]
)
def test_a_release_without_a_kind_of_project_is_told_with_the_upgrade_that_its_environment_takes(
    monkeypatch, kind, what, pip, command
):
    monkeypatch.setitem(sys.modules, "crewai", module("crewai", __version__="1.14.7"))
    monkeypatch.setitem(sys.modules, "crewai.project", module("crewai.project"))
    monkeypatch.setitem(sys.modules, "crewai.project.crew_loader", None)
    monkeypatch.setitem(sys.modules, "crewai.flow", module("crewai.flow"))
    monkeypatch.setitem(
        sys.modules, "crewai.flow.flow", module("crewai.flow.flow", Flow=type("Flow", (), {}))
    )
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if pip and name == "pip" else None)
    with pytest.raises(ProjectError) as refused:
        project.load({"kind": kind, "root": str(Path.cwd()), "definition": "crew.jsonc"})
    assert str(refused.value) == (
        f"CrewAI 1.14.7 in {sys.executable} has no {what} yet: run `{command.format(sys.executable)}`."
    )
