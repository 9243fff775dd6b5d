"""What to do about an error, where that is known."""

import sys
from dataclasses import dataclass

import pytest

from crewcast.crew.child import advice
from crewcast.crew.child.errors import summary

PIP = f"`{sys.executable} -m pip install "
KEYS = " in the project's .env or in the server's environment"


def module_missing(name: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([], PIP + "requests` (or whatever the package with this module is called)"),
        (["pyproject.toml"], PIP + "{root}`"),
        (["pyproject.toml", "requirements.txt"], PIP + "-r {root}/requirements.txt`"),
    ],
)
def test_a_missing_package_is_installed_with_what_the_project_has(tmp_path, files, said):
    for name in files:
        (tmp_path / name).touch()
    told = summary(module_missing("requests.auth"), str(tmp_path))
    assert told == (
        "ModuleNotFoundError: No module named 'requests.auth'; install it for this project: "
        + said.format(root=tmp_path)
    )


@pytest.mark.parametrize("file", ["tools/x.py", "src/tools/x.py", "tools.py"])
def test_a_missing_module_of_the_project_itself_is_not_installed(tmp_path, file):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).touch()
    assert advice.advice(module_missing("tools.weather"), "", str(tmp_path)) == ""


@pytest.mark.parametrize(
    ("error", "variable"),
    [
        (ValueError("OPENAI_API_KEY is required"), "OPENAI_API_KEY"),
        (
            ImportError(
                "API key required for deepseek. Set DEEPSEEK_API_KEY environment variable or pass it."
            ),
            "DEEPSEEK_API_KEY",
        ),
        (KeyError("SERPER_API_KEY"), "SERPER_API_KEY"),
        (
            RuntimeError("neither AWS_ACCESS_KEY_ID nor HF_TOKEN is set: missing"),
            "AWS_ACCESS_KEY_ID or HF_TOKEN",
        ),
    ],
)
def test_a_missing_key_is_named(error, variable):
    assert summary(error, "/p").endswith(f"; set {variable}{KEYS}; `crewcast dev --stub-llm` needs no key")


@pytest.mark.parametrize(
    "error", [ValueError("bad MY_API_KEY"), KeyError("topic"), ValueError("is required"), RuntimeError("429")]
)
def test_other_errors_get_no_advice(error):
    assert advice.advice(error, str(error), "/p") == ""


def test_the_client_of_a_provider_is_an_extra_of_crewai():
    error = ImportError('Anthropic native provider not available, to install: uv add "crewai[anthropic]"')
    assert summary(error, "/p").endswith("; install it for this project: " + PIP + "'crewai[anthropic]'`")


def test_what_reads_a_terminal_cannot_be_served():
    assert summary(EOFError("EOF when reading a line"), "/p").endswith(
        "it reads from a terminal, and a server has none"
    )


def test_what_pydantic_wraps_is_told_in_one_line():
    wrapped = ImportError(
        "1 validation error for X\n  Value error, too\n short [type=value_error, input_value={}]\n    For more see y"
    )
    assert summary(wrapped, "/p") == "ImportError: too short"


@pytest.mark.parametrize(
    ("dependency", "warned"),
    [
        ("crewai[tools]==1.2.3", True),
        ("crewai>=0.100,<1", True),
        ("crewai[tools]>=1.10,<2", False),
        ("crewai", False),
        ("crewai-tools==0.1", False),
        ("not a requirement !", False),
    ],
)
def test_another_crewai_than_the_one_that_was_asked_for_is_a_warning(
    tmp_path, monkeypatch, dependency, warned
):
    (tmp_path / "pyproject.toml").write_text(f'[project]\ndependencies = ["{dependency}"]\n', "utf-8-sig")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "crewai", type("Module", (), {"__version__": "1.15.30"}))
    found = advice.pins()
    assert bool(found) == warned
    if warned:
        assert "and " + sys.executable + " has 1.15.30" in found[0]


class OpenAICompletion:
    """As CrewAI calls the class."""

    def __init__(self, api_key: str | None) -> None:
        self.model, self.api_key = "gpt-4o", api_key


@dataclass
class Agent:
    llm: object


@dataclass
class Crew:
    agents: list[Agent]


def test_models_of_openai_without_a_key_are_a_warning(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with_key, without = Agent(OpenAICompletion("sk")), Agent(OpenAICompletion(None))
    assert advice.missing_keys(Crew([with_key, Agent("custom")])) == []
    [warning] = advice.missing_keys(Crew([with_key, without, without]))
    assert warning.startswith("OPENAI_API_KEY is not set, and agents use gpt-4o: set OPENAI_API_KEY in")
    monkeypatch.setenv("OPENAI_API_KEY", "sk")
    assert advice.missing_keys(Crew([without])) == []
