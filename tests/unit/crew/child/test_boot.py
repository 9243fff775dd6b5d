"""The script that a project's interpreter runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

BOOT = Path(__file__).parents[4] / "src/crewcast/crew/child/boot.py"


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
