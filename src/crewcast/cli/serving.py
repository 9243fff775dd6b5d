"""`crewcast dev` and `crewcast serve`."""

import argparse
import json
import os
import sys

from crewcast import config
from crewcast.cli.main import log_to_stderr
from crewcast.config import Settings
from crewcast.core.errors import UsageError
from crewcast.core.node import Role
from crewcast.crew.project import Project, discover, likely_inputs, unrecognised


def run(args: argparse.Namespace) -> int:
    if sys.platform == "win32":
        raise UsageError("Crewcast forks its crews and needs Linux or macOS; on Windows use WSL")
    from crewcast.parts import node_name
    from crewcast.server import run as run_server

    settings = config.load(args.command, vars(args), os.environ)
    projects = find_projects(_arguments(settings, args.projects)) if Role.WORKER in settings.roles else []
    names = [project.name for _, project in projects]
    _check_default(settings, names)
    log_to_stderr(settings.log_level)

    def announce(url: str | None, token: str | None) -> None:
        if args.command == "dev" and projects and url is not None and token is not None:
            print(_banner([project for _, project in projects], settings, url, token), flush=True)
            return
        served = ", ".join(names) or "what its workers have"
        roles = "" if len(settings.roles) == len(Role) else f" (roles: {', '.join(settings.roles)})"
        if url is not None:
            print(f"crewcast serves {served} at {url}{roles}", file=sys.stderr, flush=True)
        else:
            print(f"crewcast is up as {node_name(settings)}{roles}", file=sys.stderr, flush=True)

    run_server(settings, projects, announce)
    return 0


def _arguments(settings: Settings, named: list[str]) -> list[str]:
    """What a worker serves: of `dev`, without a word, this folder."""
    if not named and settings.command == "serve":
        raise UsageError(
            "name a project to serve, as in `crewcast serve PROJECT`; a node that runs no crews has --roles without worker"
        )
    return named or ["."]


def find_projects(arguments: list[str]) -> list[tuple[str, Project]]:
    """Each argument's project. One that cannot be recognised does not stop the others: it is served as not loadable."""
    found: list[tuple[str, Project]] = []
    problems: list[UsageError] = []
    for argument in arguments:
        try:
            found.append((argument, discover(argument)))
        except UsageError as e:
            problems.append(e)
            found.append((argument, unrecognised(argument, e)))
    if len(problems) == len(found):
        raise problems[0]
    names: dict[str, str] = {}
    for argument, project in found:
        if project.name in names:
            raise UsageError(
                f"{names[project.name]} and {argument} are both called {project.name}: "
                f"give one another name, as in NAME={argument}"
            )
        names[project.name] = argument
    return found


def _check_default(settings: Settings, names: list[str]) -> None:
    if settings.database_url is not None:
        return  # it may be another node's
    if settings.default_crew is not None and settings.default_crew not in names:
        raise UsageError(
            f"default_crew: {settings.default_crew} is not served; there are: {', '.join(names)}"
        )


def _banner(projects: list[Project], settings: Settings, url: str, token: str) -> str:
    named = next((project for project in projects if project.name == settings.default_crew), projects[0])
    served, choice, path = f"{named.name} is served at {url}", "", "/kickoff"
    if len(projects) > 1:
        names = ", ".join(project.name for project in projects)
        served = f"{len(projects)} crews are served at {url}\n  {names}"
        if settings.default_crew is None:
            choice, path = f" --crew {named.name}", f"/crews/{named.name}/kickoff"
    inputs = likely_inputs(named)
    example = json.dumps({"inputs": dict.fromkeys(inputs, "...")})
    pairs = "".join(f" {name}=..." for name in inputs)
    return f"""
  {served}
  token: {token}

  In another terminal:
    export CREWCAST_URL={url} CREWCAST_TOKEN={token}
    crewcast kickoff --watch{choice}{pairs}
  or:
    curl -X POST {url}{path} -H 'Authorization: Bearer {token}' \\
      -H 'Content-Type: application/json' -d '{example}'
"""
