"""The interpreter and the variables that a project's crews run with."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from crewcast.core.errors import UsageError

OURS = "CREWCAST_"


def interpreter(root: str, explicit: str | None = None) -> str:
    """The Python of a project: the one named, or its `.venv` (or `venv`), or else ours.

    Raises UsageError if the named one cannot be run.
    """
    if explicit:
        if not os.access(explicit, os.X_OK) or Path(explicit).is_dir():
            raise UsageError(f"--python {explicit}: there is no Python interpreter to run")
        return explicit
    for folder in (".venv", "venv"):
        own = Path(root, folder, "bin", "python")
        if os.access(own, os.X_OK):
            return str(own)
    return sys.executable


def variables(environ: Mapping[str, str], python: str) -> dict[str, str]:
    """What a crew sees of our environment: everything but Crewcast's own, as if its venv were active."""
    kept = {name: value for name, value in environ.items() if not name.startswith(OURS)}
    kept.pop("VIRTUAL_ENV", None)
    kept["PATH"] = os.pathsep.join([str(Path(python).parent), kept.get("PATH", os.defpath)])
    return kept
