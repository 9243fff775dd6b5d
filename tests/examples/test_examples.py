"""Each example is a project as `crewai create` lays it out, and its README is true of it."""

import ast
import re
from pathlib import Path

import pytest

from tests.docs.pages import PYPROJECT
from tests.support.examples import ALL, EXAMPLES, Example

PATH = re.compile(r"`([\w./-]*(?:/|\.(?:csv|env|example|jsonc|md|py|toml|yaml)))`")
# What talks to others. A tool of an example computes, or reads a file of its project.
NETWORK = {"aiohttp", "crewai_tools", "http", "httpx", "openai", "requests", "smtplib", "socket", "urllib"}

each = pytest.mark.parametrize("example", ALL, ids=lambda example: example.name)


def test_there_is_one_example_of_each_layout_one_of_a_review_and_no_project_around_them():
    assert [example.name for example in ALL] == ["classic", "declarative-flow", "flow", "json", "reviews"]
    assert not (EXAMPLES / "pyproject.toml").exists()
    assert {file.parent.parent for file in EXAMPLES.rglob("pyproject.toml")} == {EXAMPLES}


def test_each_has_a_name_of_its_own():
    names = [example.pyproject["project"]["name"] for example in ALL]
    assert len(set(names)) == len(names)


@each
def test_it_needs_the_crewai_that_it_is_tested_with(example: Example):
    (needed,) = example.pyproject["project"]["dependencies"]
    tested = [each for each in map(str, PYPROJECT["dependency-groups"]["dev"]) if each.startswith("crewai==")]
    assert [needed.replace("[tools]", "")] == tested


@each
def test_it_keeps_keys_out_of_git_and_names_them(example: Example):
    assert example.ignores(".env")
    assert not (example.root / ".env").exists()
    assert "OPENAI_API_KEY=sk-...\n" in (example.root / ".env.example").read_text("utf-8")


@pytest.mark.parametrize(
    ("name", "kind", "definition"),
    [
        ("classic", "crew", None),
        ("json", "crew", "crew.jsonc"),
        ("flow", "flow", None),
        ("declarative-flow", "flow", "src/workshop_plan/flow.yaml"),
    ],
)
def test_it_says_of_which_kind_it_is(name, kind, definition):
    example = Example(EXAMPLES / name)
    table = example.pyproject["tool"]["crewai"]
    assert (table["type"], table.get("definition")) == (kind, definition)
    assert definition is None or (example.root / definition).is_file()


@each
def test_every_file_that_its_readme_names_is_there_or_made_by_a_run(example: Example):
    named = PATH.findall(example.readme)
    assert len(named) >= 3
    absent = [path for path in named if not (example.root / path).exists()]
    assert [path for path in absent if not example.ignores(path)] == []


@each
def test_its_readme_serves_it(example: Example):
    assert example.commands("crewcast dev") == [["crewcast", "dev", f"examples/{example.name}", "--stub-llm"]]


@each
def test_its_code_reaches_for_nothing_outside(example: Example):
    files = list(example.root.rglob("*.py"))
    assert bool(files) == (example.name != "reviews"), "a JSON crew without tools has none"
    assert {name for file in files for name in imported(file)} & NETWORK == set()


def imported(file: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
    return [name.partition(".")[0] for name in names]
