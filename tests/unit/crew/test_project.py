"""Projects are recognised by their files, and refused with what was looked for."""

import sys
from pathlib import Path

import pytest

from crewcast.core.errors import UsageError
from crewcast.crew import environment
from crewcast.crew.project import crew_name, discover, likely_inputs

CLASSIC = Path(__file__).parents[3] / "examples" / "classic"


def project(folder: Path, *packages: str, pyproject: str | None = '[project]\nname = "My Crew"\n') -> Path:
    for package in packages:
        (folder / "src" / package).mkdir(parents=True)
        (folder / "src" / package / "crew.py").touch()
    if pyproject is not None:
        (folder / "pyproject.toml").write_text(pyproject)
    return folder


def test_the_example_is_found():
    found = discover(CLASSIC)
    assert (found.name, found.kind, found.module, found.source) == (
        "market_brief",
        "classic",
        "market_brief.crew",
        "src",
    )
    assert likely_inputs(found) == ["audience", "topic"]


def test_the_name_comes_from_pyproject_or_the_folder(tmp_path):
    assert discover(project(tmp_path / "a", "pkg")).name == "my-crew"
    assert discover(project(tmp_path / "Some Folder", "pkg", pyproject=None)).name == "some-folder"
    assert crew_name("!!!") == "crew"


@pytest.mark.parametrize(
    ("packages", "pyproject", "said"),
    [
        ((), "", "no src/<package>/crew.py"),
        (("a", "b"), "", "several packages under src/: a, b"),
        (("a",), '[tool.crewai]\ntype = "flow"\n', "type is 'flow'"),
        (("a",), "not toml", "cannot be read"),
    ],
)
def test_what_is_not_served_says_why(tmp_path, packages, pyproject, said):
    with pytest.raises(UsageError) as caught:
        discover(
            project(tmp_path / "p", *packages, pyproject=pyproject)
            if packages
            else _empty(tmp_path, pyproject)
        )
    assert said in str(caught.value)


def _empty(folder: Path, pyproject: str) -> Path:
    (folder / "pyproject.toml").write_text(pyproject)
    return folder


def test_a_project_of_its_own_environment_uses_it(tmp_path):
    assert environment.interpreter(str(tmp_path)) == sys.executable
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    assert environment.interpreter(str(tmp_path)) == str(python)
    assert environment.interpreter(str(tmp_path), sys.executable) == sys.executable
    with pytest.raises(UsageError, match="no Python interpreter"):
        environment.interpreter(str(tmp_path), str(tmp_path))


def test_crews_see_none_of_our_variables():
    seen = environment.variables(
        {"CREWCAST_TOKEN": "x", "HOME": "/h", "PATH": "/bin", "VIRTUAL_ENV": "/v"}, "/p/bin/python"
    )
    assert seen == {"HOME": "/h", "PATH": "/p/bin:/bin"}
