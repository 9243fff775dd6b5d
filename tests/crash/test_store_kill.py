"""kill -9 in the middle of commits: what was acknowledged is there, and what is there is whole."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.crash.writing_node import RUNS, check

ROOT = Path(__file__).parents[2]
SECONDS = float(os.environ.get("CREWCAST_SOAK_SECONDS", "4"))


def killed(folder: Path, after: float) -> dict[str, tuple[int, int]]:
    """Runs a writer, kills it `after` seconds of work; the last acknowledged `seq` and cursor of each run."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.crash.writing_node", str(folder)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    up = process.stdout.readline()
    time.sleep(after)
    process.kill()
    out, err = process.communicate()
    assert (up, err, process.returncode) == ("up\n", "", -signal.SIGKILL)
    lines = [line.split() for line in out.splitlines(keepends=True) if line.endswith("\n")]
    return {run: (int(seq), int(cursor)) for run, seq, cursor in lines}


def test_no_kill_loses_an_acknowledged_write(tmp_path: Path):
    dice = random.Random()
    acknowledged: dict[str, tuple[int, int]] = {}
    until = time.monotonic() + SECONDS
    kills = count = 0
    # Until it has worked between the kills too, for longer than it takes to come up.
    while time.monotonic() < until or kills < 3 or count <= RUNS * kills:
        acknowledged |= killed(tmp_path, dice.uniform(0, 0.3))
        kills += 1
        count = asyncio.run(check(tmp_path, acknowledged))
    print(f"{kills} kills, {count} events")
