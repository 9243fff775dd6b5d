"""`crewcast dev` and `crewcast serve`."""

import argparse
import json
import os
import sys
from pathlib import Path

from crewcast import config
from crewcast.cli.main import log_to_stderr
from crewcast.crew.project import Project, discover
from crewcast.server import run as run_server


def run(args: argparse.Namespace) -> int:
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
    example = json.dumps({"inputs": {"topic": "..."}})
    return f"""
  {project.name} is served at {url}
  token: {token}

  In another terminal:
    export CREWCAST_URL={url} CREWCAST_TOKEN={token}
    crewcast kickoff --watch topic=...
  or:
    curl -X POST {url}/kickoff -H 'Authorization: Bearer {token}' \\
      -H 'Content-Type: application/json' -d '{example}'
"""
