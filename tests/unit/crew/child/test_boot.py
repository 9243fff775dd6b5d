"""The script that a project's interpreter runs."""

import ast
import asyncio
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from crewcast.crew.host import Host, HostUnusable

BOOT = Path(__file__).parents[4] / "src/crewcast/crew/child/boot.py"
MEND = "and CrewAI needs 3.10 or newer: make the project's environment with another Python, or name one with --python."


def test_the_package_is_private_and_its_folder_not_on_the_path(tmp_path):
    probe = f"""
import json, runpy, sys
sys.path.insert(0, {str(BOOT.parent)!r})
boot = runpy.run_path({str(BOOT)!r})
boot["load_package"](boot["Path"]({str(BOOT.parent)!r}))
import _crewcast_child.wire
try:
    import wire
    shadowed = True
except ImportError:
    shadowed = False
print(json.dumps([sys.path, shadowed, _crewcast_child.wire.__name__, "crewcast" in sys.modules]))
"""
    done = subprocess.run(
        [sys.executable, "-c", probe],
        capture_output=True,
        check=True,
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
    )
    path, shadowed, name, leaked = json.loads(done.stdout)
    assert str(BOOT.parent) not in path
    assert (shadowed, name, leaked) == (False, "_crewcast_child.wire", False)


# --- a Python that is too old -----------------------------------------------------------------


def refusal(python) -> str:
    """What the server is told by a host that cannot be."""

    async def asked():
        host = Host(str(python), {"PATH": os.environ["PATH"]})
        with pytest.raises(HostUnusable) as refused:
            await asyncio.wait_for(host.ready(), 30)
        await host.close()
        return str(refused.value)

    return asyncio.run(asked())


def test_a_python_that_crewai_does_not_run_on_is_told(tmp_path):
    """One that says it is older; the file is read by a real one below, where there is one."""
    python = tmp_path / "python"
    say = "import sys, runpy; sys.version_info = (3, 9, 18); sys.argv[:1] = []; runpy.run_path(sys.argv[0], run_name='__main__')"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{say}" "$@"\n')
    python.chmod(0o755)
    assert refusal(python) == f"{sys.executable} is Python 3.9.18, {MEND}"


def older_pythons():
    """Those on this machine that can read `boot.py`: on the path, and where pyenv has them."""
    for minor in range(6, 10):
        name = f"python3.{minor}"
        folders = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob(f"versions/3.{minor}.*/bin")
        for folder in itertools.chain(os.get_exec_path(), folders):
            found = shutil.which(name, path=str(folder))
            if found and subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode == 0:
                yield found
                break


def test_the_script_is_read_by_older_pythons_and_the_package_by_the_oldest_that_is_served():
    ast.parse(BOOT.read_text("utf-8"), feature_version=(3, 6))
    for file in BOOT.parent.glob("*.py"):
        ast.parse(file.read_text("utf-8"), feature_version=(3, 10))


def test_a_real_older_python_is_told():
    pythons = list(older_pythons())
    if not pythons:
        pytest.skip("no Python 3.6 to 3.9 is on this machine")
    for python in pythons:
        told = refusal(python)
        assert re.fullmatch(r".* is Python 3\.[6-9]\.\d+, " + re.escape(MEND), told), (python, told)
