"""Run by a project's interpreter: `PYTHON boot.py --control-fd N [--memory]`.

The one file here that also older Pythons can read (3.6 and later), so that one of them is told and not a SyntaxError.
"""

import argparse
import importlib.util
import json
import os
import sys
from pathlib import Path

PACKAGE = "_crewcast_child"
# The oldest that CrewAI runs on.
OLDEST_PYTHON = (3, 10)


def too_old() -> str:
    """What to do about this Python if CrewAI does not run on it, else nothing."""
    if sys.version_info >= OLDEST_PYTHON:
        return ""
    return (
        sys.executable
        + " is Python "
        + ".".join(map(str, sys.version_info[:3]))
        + ", and CrewAI needs "
        + ".".join(map(str, OLDEST_PYTHON))
        + " or newer: make the project's environment with another Python, or name one with --python."
    )


def load_package(directory: Path) -> None:
    """Load this folder under a private name: its modules are called `host`, `events`, `tools`, and a project's may be too."""
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != directory]
    spec = importlib.util.spec_from_file_location(
        PACKAGE, directory / "__init__.py", submodule_search_locations=[str(directory)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = package
    spec.loader.exec_module(package)


def main() -> int:
    parser = argparse.ArgumentParser(prog="crewcast-child")
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--memory", action="store_true")
    arguments = parser.parse_args()
    old = too_old()
    if old:
        told = json.dumps({"op": "unusable", "error": old, "traceback": ""}) + "\n"
        os.write(arguments.control_fd, told.encode())
        return 1
    # A project may read the command line when it is imported; ours is none of its business.
    sys.argv[:] = ["crewcast"]
    load_package(Path(__file__).resolve().parent)
    host = importlib.import_module(PACKAGE + ".host")
    status: int = host.serve(arguments.control_fd, memory=arguments.memory)
    return status


if __name__ == "__main__":
    sys.exit(main())
