"""Whether the files of a project have changed since they were last looked at."""

import os
from pathlib import Path

from crewcast.crew.project import NOT_CODE

# What a crew is made of. Not: knowledge and data, which are read by each run.
SUFFIXES = (".py", ".yaml", ".yml", ".json", ".jsonc", ".toml", ".env")
MAX_FILES = 5000


class Edits:
    """`found()` compares names, sizes and times of the files that make the crew: a millisecond for a usual project.

    It is asked at each request, so that an edit is known to the request that follows it; no watcher is that punctual.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._seen = self._look()

    def found(self) -> bool:
        now = self._look()
        changed = now != self._seen
        self._seen = now
        return changed

    def _look(self) -> dict[str, tuple[int, int]]:
        seen: dict[str, tuple[int, int]] = {}
        for folder, folders, files in os.walk(self._root):
            folders[:] = [
                name
                for name in folders
                if name not in NOT_CODE
                and not name.startswith(".")
                and not os.path.exists(os.path.join(folder, name, "pyvenv.cfg"))  # noqa: PTH110, PTH118 - walked often
            ]
            for name in files:
                if name.endswith(SUFFIXES):
                    path = os.path.join(folder, name)  # noqa: PTH118
                    try:
                        status = os.stat(path)  # noqa: PTH116
                    except OSError:
                        continue
                    seen[path] = (status.st_mtime_ns, status.st_size)
            if len(seen) >= MAX_FILES:
                break
        return seen
