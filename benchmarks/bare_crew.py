"""What Crewcast is compared with: `crew.kickoff()` in a child forked from a process that has CrewAI loaded.

`python bare_crew.py CHILD_PACKAGE PROJECT_ROOT MODULE`: a line with inputs (JSON) on stdin, the seconds on stdout.
The preload is the very one of Crewcast's host, so that both children start from the same place.
"""

import gc
import importlib
import importlib.util
import json
import os
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    package, root, module = sys.argv[1:]
    spec = importlib.util.spec_from_file_location(
        "_crewcast_child", Path(package, "__init__.py"), submodule_search_locations=[package]
    )
    assert spec is not None
    assert spec.loader is not None
    child = importlib.util.module_from_spec(spec)
    sys.modules["_crewcast_child"] = child
    spec.loader.exec_module(child)
    preload = importlib.import_module("_crewcast_child.preload")
    preload.preload()
    os.environ.update(preload.DEFAULTS)  # else the bare crew would also look for a newer CrewAI
    gc.collect()
    gc.freeze()
    out = os.fdopen(os.dup(1), "w")
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        began = time.monotonic()
        pid = os.fork()
        if pid == 0:
            _kickoff(root, module, json.loads(line))
        os.waitpid(pid, 0)
        print(time.monotonic() - began, file=out, flush=True)


def _kickoff(root: str, module: str, inputs: dict[str, str]) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.environ["CREWAI_STORAGE_DIR"] = tempfile.mkdtemp(prefix="bare-crew-")
    os.chdir(root)
    sys.path[:0] = [str(Path(root, "src")), root]
    found = importlib.import_module(module)
    [crew_class] = [value for value in vars(found).values() if getattr(value, "is_crew_class", False)]
    crew_class().crew().kickoff(inputs=inputs)
    os._exit(0)


if __name__ == "__main__":
    main()
