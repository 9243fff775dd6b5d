"""Projects are recognised by their files, and refused with what was looked for."""

import sys
from pathlib import Path

import pytest

from crewcast.core.errors import UsageError
from crewcast.crew import environment
from crewcast.crew.project import crew_name, discover, likely_inputs, unrecognised

CLASSIC = Path(__file__).parents[3] / "examples" / "classic"
NAMED = '[project]\nname = "My Crew"\n'
CREW_CLASS = "from crewai.project import CrewBase\n@CrewBase\nclass Own:\n    ...\n"
FLOW_CLASS = "from crewai.flow.flow import Flow\nclass Own(Flow[dict]):\n    ...\n"
HAND_MADE = "from crewai import Crew\ncrew = Crew(agents=[], tasks=[])\n"


def project(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
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


def test_the_name_comes_from_the_argument_or_pyproject_or_the_folder(tmp_path):
    own = project(tmp_path / "a", {"crew.py": CREW_CLASS, "pyproject.toml": NAMED})
    assert discover(own).name == "my-crew"
    assert discover(f"Other-1={own}").name == "other-1"
    poetry = project(
        tmp_path / "b", {"crew.py": CREW_CLASS, "pyproject.toml": "[tool.poetry]\nname = 'old'\n"}
    )
    assert discover(poetry).name == "old"
    assert discover(project(tmp_path / "Some Folder", {"crew.py": CREW_CLASS})).name == "some-folder"
    assert crew_name("!!!") == "crew"


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"src/pkg/crew.py": CREW_CLASS}, ("classic", "pkg.crew", "src", "", "")),
        ({"src/my-pkg/crew.py": CREW_CLASS}, ("classic", "my-pkg.crew", "src", "", "")),
        ({"crew.py": CREW_CLASS}, ("classic", "crew", ".", "", "")),
        ({"pkg/__init__.py": "", "pkg/crew.py": CREW_CLASS}, ("classic", "pkg.crew", ".", "", "")),
        ({"app/crew.py": CREW_CLASS}, ("classic", "crew", "app", "", "")),
        ({"src/crew.py": CREW_CLASS}, ("classic", "crew", "src", "", "")),
        ({"src/pkg/team.py": CREW_CLASS}, ("classic", "pkg.team", "src", "", "")),
        # A flow's main.py says what its crews are for.
        (
            {"src/pkg/main.py": FLOW_CLASS, "src/pkg/crews/one/crew.py": CREW_CLASS},
            ("flow", "pkg.main", "src", "", ""),
        ),
        ({"main.py": FLOW_CLASS, "crew.py": CREW_CLASS}, ("flow", "main", ".", "", "")),
        (
            {"main.py": FLOW_CLASS, "crew.py": CREW_CLASS, "pyproject.toml": '[tool.crewai]\ntype = "crew"\n'},
            ("classic", "crew", ".", "", ""),
        ),
        (
            {"flow.py": FLOW_CLASS, "crew.py": CREW_CLASS, "pyproject.toml": '[tool.crewai]\ntype = "flow"\n'},
            ("flow", "flow", ".", "", ""),
        ),
        ({"crew.jsonc": "{}"}, ("json", "", ".", "", "crew.jsonc")),
        (
            {"a/b.json": "{}", "pyproject.toml": '[tool.crewai]\ntype = "crew"\ndefinition = "a/b.json"\n'},
            ("json", "", ".", "", "a/b.json"),
        ),
        ({"src/pkg/flow.yaml": "schema: crewai.flow/v1\n"}, ("declarative-flow", "", "src", "", "src/pkg/flow.yaml")),
        (
            {"x.yaml": "", "pyproject.toml": '[tool.crewai]\ntype = "flow"\ndefinition = "x.yaml"\n'},
            ("declarative-flow", "", ".", "", "x.yaml"),
        ),
        ({"main.py": HAND_MADE}, ("object", "main", ".", "crew", "")),
        (
            {"main.py": "def build():\n    return Crew(agents=[])\n"},
            ("object", "main", ".", "build", ""),
        ),
        (
            {"main.py": "class Trip:\n    def run(self):\n        return Crew(agents=[]).kickoff()\n"},
            ("object", "main", ".", "Trip.run", ""),
        ),
        # The value is what the function below it starts.
        (
            {"main.py": HAND_MADE + "def main():\n    crew.kickoff()\n"},
            ("object", "main", ".", "crew", ""),
        ),
        # Importing this would run it: it is run up to its kickoff.
        ({"main.py": "Crew(agents=[]).kickoff()\n"}, ("object", "main", ".", "", "")),
        (
            {"main.py": 'from team import it\nif __name__ == "__main__":\n    it.kickoff(inputs={})\n'},
            ("object", "main", ".", "", ""),
        ),
        (
            {"main.py": "def go(x):\n    Crew(agents=[]).kickoff()\ntry:\n    go(1)\nfinally:\n    pass\n"},
            ("object", "main", ".", "", ""),
        ),
        ({"odd.py": HAND_MADE}, ("object", "odd", ".", "crew", "")),
        # No Python: loading it will tell the error.
        ({"src/pkg/crew.py": "def (:\n"}, ("classic", "pkg.crew", "src", "", "")),
        ({"crew.py": "@CrewBase\nclass A:\n  def (\n"}, ("classic", "crew", ".", "", "")),
        # What lies in environments and tests is not the project's.
        (
            {"crew.py": CREW_CLASS, "tests/crew.py": CREW_CLASS, "env/pyvenv.cfg": "", "env/crew.py": CREW_CLASS},
            ("classic", "crew", ".", "", ""),
        ),
    ],
)  # fmt: skip
def test_layouts(tmp_path, files, found):
    it = discover(project(tmp_path, files))
    assert (it.kind, it.module, it.source, it.object, it.definition) == found


@pytest.mark.parametrize(
    ("made", "chosen"),
    [
        ("crew_a = Crew()\ncrew = Crew()\n", "crew"),
        ("x: Crew = Crew()\n", "x"),
        ("if True:\n    x = Crew()\n", "x"),
        ("def a():\n    return Crew()\ndef main():\n    return Crew()\n", "main"),
        ("def a(topic):\n    return Crew()\ndef b(topic='tea'):\n    return Crew()\n", "b"),
        ("def _a():\n    return Crew()\ndef b():\n    return Crew()\n", "b"),
        ("class T:\n    def __init__(self, x): ...\n    def run(self):\n        Crew().kickoff()\ndef go():\n    T(1).crew.kickoff()\n", "go"),
        ("def build() -> Crew:\n    ...\n", "build"),
        ("async def main():\n    await Crew().kickoff_async()\n", "main"),
    ],
)  # fmt: skip
def test_the_crew_that_is_made_by_hand(tmp_path, made, chosen):
    assert discover(project(tmp_path, {"main.py": made})).object == chosen


@pytest.mark.parametrize(
    ("argument", "found"),
    [
        ("main:crew", ("main", ".", "crew")),
        ("main.py:crew", ("main", ".", "crew")),
        ("pkg.team:Team", ("pkg.team", "src", "Team")),
        ("pkg:make", ("pkg", "src", "make")),
        ("main:Trip.run", ("main", ".", "Trip.run")),
    ],
)
def test_a_crew_may_be_named_outright(tmp_path, monkeypatch, argument, found):
    project(tmp_path, {"main.py": "", "src/pkg/__init__.py": "", "src/pkg/team.py": ""})
    it = discover(f"{tmp_path}/{argument}")
    assert (it.kind, it.module, it.source, it.object) == ("object", *found)
    assert it.root == str(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert discover(f"x={argument}") == discover(f"x={tmp_path}/{argument}")


def test_modules_in_no_folder_of_their_own_that_import_each_other_get_a_package(tmp_path):
    assert discover(project(tmp_path / "a", {"crew.py": "from .tools import x\n" + CREW_CLASS})).package
    assert not discover(project(tmp_path / "b", {"crew.py": "from tools import x\n" + CREW_CLASS})).package
    assert not discover(project(tmp_path / "c", {"src/p/crew.py": "from .t import x\n" + CREW_CLASS})).package


def test_windows_files_are_read(tmp_path):
    for name, text in {"crew.py": CREW_CLASS, "pyproject.toml": NAMED}.items():
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert (discover(tmp_path).name, discover(tmp_path).kind) == ("my-crew", "classic")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "no CrewAI project that Crewcast knows"),
        ({"pyproject.toml": '[tool.crewai]\ntype = "flow"\n'}, "type is 'flow'"),
        ({"src/a/crew.py": CREW_CLASS, "src/b/crew.py": CREW_CLASS}, "p/a.crew:Own, p/b.crew:Own"),
        ({"src/a/crew.py": "", "src/b/crew.py": ""}, "several crew.py"),
        ({"main.py": "a = Crew()\nb = Crew()\n"}, "p/main:a, p/main:b"),
        ({"pyproject.toml": "not toml"}, "cannot be read"),
        ({"pyproject.toml": "[tool.crewai]\ndefinition = 'x.json'\n"}, "'x.json', and there is no such file"),
        ({"x.json": "", "p/pyproject.toml": "[tool.crewai]\ndefinition = '../x.json'\n"}, "no such file"),
    ],
)
def test_what_is_not_served_says_why(tmp_path, files, said):
    folder = project(tmp_path / "p", files)
    folder.mkdir(exist_ok=True)
    with pytest.raises(UsageError) as caught:
        discover(folder / "p" if "p/pyproject.toml" in files else folder)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("nowhere", "is not a folder"),
        ("nowhere/main:crew", "there is no folder"),
        ("{}/other:crew", "has no other.py"),
        ("{}/main:not a name", "is not a folder"),
    ],
)
def test_an_argument_that_names_nothing_says_why(tmp_path, argument, said):
    project(tmp_path, {"main.py": ""})
    with pytest.raises(UsageError, match=said):
        discover(argument.format(tmp_path))


def test_an_unrecognised_project_keeps_its_name_and_its_problem(tmp_path):
    it = unrecognised(f"mine={tmp_path}", UsageError("nothing there"))
    assert (it.name, it.kind, it.problem, it.root) == ("mine", "unknown", "nothing there", str(tmp_path))


@pytest.mark.parametrize("folder", [".venv", "venv"])
def test_a_project_of_its_own_environment_uses_it(tmp_path, folder):
    assert environment.interpreter(str(tmp_path)) == sys.executable
    python = tmp_path / folder / "bin" / "python"
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


def test_the_example_command_of_a_json_crew_leaves_out_what_has_a_default(tmp_path):
    definition = '{\n  // {not} one\n  "tasks": [{"description": "{pupils} without {avoid}"}],\n  "inputs": {"avoid": "nuts"}\n}\n'
    found = discover(
        project(tmp_path, {"crew.jsonc": definition, "agents/a.jsonc": '{"role": "{topic} cook"}'})
    )
    assert likely_inputs(found) == ["not", "pupils", "topic"]


TWO_FLOWS = """
from crewai.flow.flow import Flow
class First(Flow[dict]): ...
class Second(Flow[dict]): ...
"""


@pytest.mark.parametrize(
    ("code", "served"),
    [
        ("", ""),
        ("def kickoff():\n    flow = Second()\n    flow.kickoff()\n", "Second"),
        ("async def main():\n    await Second(name='x').kickoff_async()\n", "Second"),
        ("def plot():\n    First().plot()\ndef kickoff():\n    Second().kickoff()\n", "Second"),
        ("if __name__ == '__main__':\n    Second().kickoff()\n", "Second"),
        ("Second().kickoff()\n", "Second"),
        # Both are made: neither is meant more than the other.
        ("def kickoff():\n    First().kickoff()\n    Second().kickoff()\n", ""),
        # What another one makes is a part of it.
        (
            "class Third(Flow):\n    def go(self):\n        First().kickoff()\n        Second().kickoff()\n",
            "Third",
        ),
        # The one that is started, although another starts from it.
        ("class Third(First): ...\ndef kickoff():\n    First().kickoff()\n", "First"),
    ],
)
def test_of_several_flows_the_one_is_served_that_the_module_starts(tmp_path, code, served):
    found = discover(project(tmp_path, {"main.py": TWO_FLOWS + code}))
    assert (found.kind, found.object) == ("flow", served)


def test_the_only_flow_needs_no_name(tmp_path):
    code = FLOW_CLASS + "class Leaf(Own): ...\ndef kickoff():\n    Leaf().kickoff()\n"
    assert discover(project(tmp_path, {"main.py": code})).object == ""
