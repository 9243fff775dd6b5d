"""`crewcast check` with real CrewAI, as a person calls it."""

import subprocess
import sys
from pathlib import Path

from tests.support.server import REPOSITORY


def check(*projects: "Path | str") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "crewcast", "check", *map(str, projects)],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def test_what_is_found_in_a_project_and_what_is_odd():
    done = check(REPOSITORY / "examples" / "reviews")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("recall_notice: json, CrewAI ")
    assert "  inputs: fault, product" in lines
    assert "    notice_task (Press Officer), waits for a person" in lines
    assert "    facts_task (Product Safety Officer)" in lines
    assert [line for line in lines if line.startswith("  warning: OPENAI_API_KEY is not set")]
    assert (done.returncode, done.stderr) == (0, "")


def test_one_that_cannot_be_served_is_told_and_leaves_the_others_alone(tmp_path):
    (tmp_path / "broken.py").write_text("from crewai import Crew\ncrew = Crew(agents=[1])\n")
    done = check(tmp_path / "nowhere", f"broken={tmp_path}/broken.py:crew", REPOSITORY / "examples" / "flow")
    assert done.returncode == 1
    assert "nowhere: cannot be served\n" in done.stdout
    assert "broken: cannot be served\n" in done.stdout
    assert "Traceback" in done.stderr
    assert "broken.py" in done.stderr
    assert "support_desk: flow, CrewAI" in done.stdout
