"""`crewcast dev` and `crewcast serve`."""

import argparse
import json
import os
import sys
from pathlib import Path

from crewcast import config
from crewcast.cli.main import log_to_stderr
from crewcast.core.errors import UsageError
from crewcast.crew.project import Project, discover, likely_inputs


def run(args: argparse.Namespace) -> int:
    if sys.platform == "win32":
        raise UsageError("Crewcast forks its crews and needs Linux or macOS; on Windows use WSL")
    from crewcast.server import run as run_server

    settings = config.load(args.command, vars(args), os.environ)
    project = discover(Path(args.project))
    log_to_stderr(settings.log_level)

    def announce(url: str, token: str) -> None:
        if args.command == "dev":
            print(_banner(project, url, token), flush=True)
        else:
            print(f"crewcast serves {project.name} at {url}", file=sys.stderr, flush=True)

    run_server(settings, project, announce)
    return 0


def _banner(project: Project, url: str, token: str) -> str:
    inputs = likely_inputs(project)
    example = json.dumps({"inputs": dict.fromkeys(inputs, "...")})
    pairs = "".join(f" {name}=..." for name in inputs)
    return f"""
  {project.name} is served at {url}
  token: {token}

  In another terminal:
    export CREWCAST_URL={url} CREWCAST_TOKEN={token}
    crewcast kickoff --watch{pairs}
  or:
    curl -X POST {url}/kickoff -H 'Authorization: Bearer {token}' \\
      -H 'Content-Type: application/json' -d '{example}'
"""
