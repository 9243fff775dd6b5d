"""`crewcast check`: loads projects as a server would, and tells what it found. Runs nothing of them but their making."""

import argparse
import asyncio
import logging
import os
import sys

from crewcast.cli.serving import find_projects
from crewcast.crew import environment
from crewcast.crew.host import Host, HostUnusable
from crewcast.crew.project import Project
from crewcast.crew.served import Description, LoadError, ServedCrew


def run(args: argparse.Namespace) -> int:
    # What is told here is told once.
    logging.getLogger("crewcast").addHandler(logging.NullHandler())
    projects = [project for _, project in find_projects(args.projects or ["."])]
    return asyncio.run(_check(projects, args.python))


async def _check(projects: list[Project], python: str | None) -> int:
    hosts: dict[str, Host] = {}
    failed = False
    for project in projects:
        interpreter = environment.interpreter(project.root, python)
        host = hosts.get(interpreter)
        if host is None:
            host = hosts[interpreter] = Host(interpreter, environment.variables(os.environ, interpreter))
        try:
            info = await host.ready()
            found = await ServedCrew(project, host).describe()
        except (LoadError, HostUnusable) as e:
            failed = True
            print(f"{project.name}: cannot be served\n  {e}")
            if e.detail:
                print(e.detail, file=sys.stderr)
        else:
            print(
                f"{project.name}: {project.kind}, CrewAI {info.crewai} on Python {info.python} ({interpreter})"
            )
            print("\n".join(_told(found)))
    await asyncio.gather(*(host.close() for host in hosts.values()))
    return 1 if failed else 0


def _told(found: Description) -> list[str]:
    others = [name for name in found.inputs if name not in found.required]
    lines = [f"  inputs: {', '.join(found.required) or 'none are needed'}"]
    if others:
        lines.append(f"  may be given: {', '.join(others)}")
    if found.tasks is None:
        lines.append("  tasks: as the flow goes")
    else:
        lines.append("  tasks:")
        for task in found.tasks:
            asks = ", waits for a person" if task.get("human_input") else ""
            agent = f" ({task['agent']})" if task.get("agent") else ""
            lines.append(f"    {task['task_id']}{agent}{asks}")
    lines += [f"  warning: {warning}" for warning in found.warnings]
    return lines
