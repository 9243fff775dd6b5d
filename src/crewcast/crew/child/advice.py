"""What to do about an error, in half a sentence, and about a CrewAI that is not the one that was asked for."""

import importlib.util
import os
import re
import sys
from pathlib import Path
from typing import Any

# What libraries say of a key that they miss names its variable.
KEY = re.compile(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*_(?:API_KEY|KEY|TOKEN|ACCESS_KEY_ID)\b")
# CrewAI names the extra that brings a provider's client.
EXTRA = re.compile(r"""uv add ['"](crewai\[[\w-]+\])['"]""")
MISSING = re.compile(
    r"required|missing|not (?:set|found|provided)|must be set|set the|no api key|environment", re.IGNORECASE
)


def advice(error: BaseException, message: str, root: str) -> str:
    """What mends the error, or nothing if that is not known."""
    if isinstance(error, ModuleNotFoundError) and error.name and not _is_the_projects(error.name, root):
        return "install it for this project: " + _install(error.name, root)
    if isinstance(error, EOFError):
        return "it reads from a terminal, and a server has none"
    extra = EXTRA.search(message)
    if extra is not None:
        return "install it for this project: " + pip("'" + extra.group(1) + "'")
    keys = sorted(set(KEY.findall(message)))
    if keys and (MISSING.search(message) or isinstance(error, KeyError)):
        return _set_keys(keys)
    return ""


def missing_keys(crew: Any) -> list[str]:
    """A warning for models of OpenAI without a key: CrewAI itself looks at the first call, others when they are built."""
    without = sorted(
        {
            str(agent.llm.model)
            for agent in crew.agents
            if type(getattr(agent, "llm", None)).__name__ == "OpenAICompletion"
            and not getattr(agent.llm, "api_key", None)
            and not os.environ.get("OPENAI_API_KEY")
        }
    )
    if not without:
        return []
    models = ", ".join(without)
    return ["OPENAI_API_KEY is not set, and agents use " + models + ": " + _set_keys(["OPENAI_API_KEY"])]


def pins() -> list[str]:
    """A warning if the project in this folder asks for another CrewAI than the one that runs it."""
    try:
        import tomllib
    except ImportError:
        # Python 3.10; CrewAI brings it.
        import tomli as tomllib  # type: ignore[no-redef, import-not-found, unused-ignore]
    try:
        from packaging.requirements import InvalidRequirement, Requirement
    except ImportError:
        return []
    running = importlib.import_module("crewai").__version__
    try:
        project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8-sig")).get("project", {})
    except (OSError, ValueError):
        return []
    warnings = []
    for text in project.get("dependencies", []):
        try:
            wanted = Requirement(text)
        except (InvalidRequirement, TypeError):
            continue
        if wanted.name.lower() == "crewai" and not wanted.specifier.contains(running, prereleases=True):
            warnings.append(
                "pyproject.toml asks for crewai" + str(wanted.specifier) + ", and " + sys.executable + " has "
                + running + ": make a .venv in the project with its own requirements, or name one with --python"
            )  # fmt: skip
    return warnings


def _is_the_projects(module: str, root: str) -> bool:
    """Whether the missing module is a part of a package of the project's own: then nothing is to be installed."""
    top = module.partition(".")[0]
    return any(
        Path(folder, top).is_dir() or Path(folder, top + ".py").is_file()
        for folder in (root, Path(root, "src"))
    )


def _set_keys(keys: list[str]) -> str:
    named = " or ".join(keys)
    return (
        "set "
        + named
        + " in the project's .env or in the server's environment; `crewcast dev --stub-llm` needs no key"
    )


def _install(module: str, root: str) -> str:
    if Path(root, "requirements.txt").is_file():
        return pip("-r " + str(Path(root, "requirements.txt")))
    if Path(root, "pyproject.toml").is_file():
        return pip(root)
    return pip(module.partition(".")[0]) + " (or whatever the package with this module is called)"


def pip(what: str) -> str:
    """The command that installs for this interpreter, in backticks."""
    # An environment that uv made has no pip in it.
    has_pip = importlib.util.find_spec("pip") is not None
    installer = (
        sys.executable + " -m pip install " if has_pip else "uv pip install --python " + sys.executable + " "
    )
    return "`" + installer + what + "`"
