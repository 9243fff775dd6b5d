"""`make demo` with a database: a node for each role."""

import os
import re
import subprocess
import sys

from tests.support.postgres import running
from tests.support.server import REPOSITORY


def test_the_demonstration_holds_with_a_node_for_each_role(tmp_path):
    variables = {name: value for name, value in os.environ.items() if not name.startswith("CREWCAST_")}
    with running() as postgres:
        done = subprocess.run(
            [sys.executable, "-m", "crewcast.demo", str(REPOSITORY / "examples" / "classic")],
            capture_output=True,
            text=True,
            timeout=100,
            cwd=tmp_path,
            env={**variables, "CREWCAST_DATABASE_URL": postgres.url()},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        listed = re.findall(r"^  (demo-\S+) +alive +(\S+) .* (\S+)$", done.stdout, re.MULTILINE)
        assert listed == [
            ("demo-api", "api", "-"),
            ("demo-dispatcher", "dispatcher", "-"),
            ("demo-worker", "worker", "market_brief"),
        ]
        for channel in ("task", "step", "crew"):
            assert re.search(rf"^  {channel} +(\d+) +\1 +0 +yes +yes +yes$", done.stdout, re.MULTILINE)
        assert done.stdout.endswith("\nAll of it holds.\n")
