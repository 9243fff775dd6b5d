"""Project environments that are not ours: what is refused, and what older releases of CrewAI do of their own."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from crewcast.crew.child.host import OLDEST
from tests.crewai.driver import BOOT, PATIENCE, Host, Lines, lab

REPOSITORY = Path(__file__).parents[2]
PYTHON = str(Path(sys.executable).resolve())


@pytest.fixture
def unusable(tmp_path):
    """What the host says of an environment that consists of the standard library and the packages put there."""

    def unusable(*packages):
        for name in packages:
            (tmp_path / name).mkdir()
            (tmp_path / name / "__init__.py").write_text(f"raise RuntimeError('{name} was imported')")
        ours, theirs = socket.socketpair()
        with ours, theirs:
            process = subprocess.Popen(
                # -S: no site-packages.
                [PYTHON, "-S", str(BOOT), "--control-fd", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={"HOME": str(tmp_path), "PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)},
            )
            theirs.close()
            lines = Lines(ours)
            assert lines.next() == {"op": "loading"}
            message = lines.next()
            assert process.wait(PATIENCE) == 1
        assert message.pop("op") == "unusable"
        return message

    return unusable


@pytest.fixture
def installed(tmp_path):
    """Say that a version of CrewAI is installed there, as installers do."""

    def installed(version):
        about = tmp_path / f"crewai-{version}.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: crewai\nVersion: {version}\n")

    return installed


@pytest.mark.parametrize(
    ("packages", "command"),
    [(["pip"], f"{PYTHON} -m pip install crewai"), ([], f"uv pip install --python {PYTHON} crewai")],
    ids=["pip", "no pip"],
)
def test_an_environment_without_crewai_says_how_to_mend_it(unusable, packages, command):
    said = unusable(*packages)
    assert said["error"] == f"CrewAI is not installed in {PYTHON}: run `{command}`."
    assert "ModuleNotFoundError" in said["traceback"]


@pytest.mark.parametrize("version", ["0.203.2", "1.9.3", "1.10"])
def test_a_crewai_that_is_too_old_is_refused_without_importing_it(unusable, installed, version):
    installed(version)
    assert unusable("crewai", "pip") == {
        "error": f"CrewAI {version} is installed in {PYTHON}, but the oldest that can be hosted is 1.10.1: "
        f"run `{PYTHON} -m pip install 'crewai>=1.10.1'`.",
        "traceback": "",
    }


@pytest.mark.parametrize("version", ["1.10.1", "1.10.1rc1", "1.15.30", "2.0", None])
def test_any_other_crewai_is_imported(unusable, installed, version):
    if version is not None:
        installed(version)
    assert unusable("crewai")["error"] == (
        f"CrewAI cannot be imported by {PYTHON} (RuntimeError: crewai was imported): "
        "repair that environment, or name another with --python."
    )


def test_the_oldest_crewai_that_is_not_refused_is_tested():
    pinned = (REPOSITORY / "requirements/compat-oldest.txt").read_text().splitlines()
    assert f"crewai=={OLDEST} \\" in pinned


@pytest.fixture(scope="module")
def shared_host():
    host = Host()
    assert host.greeting[1]["op"] == "ready", host.greeting
    yield host
    assert host.close() == 0


@pytest.fixture
def host(shared_host):
    yield shared_host
    shared_host.hang_up()


def test_asynchronous_event_handlers_run_in_a_child(host, tmp_path):
    """Before 1.13 their thread is started when CrewAI is imported, which is before the fork."""
    code = """
    from crewai.events import crewai_event_bus, CrewKickoffStartedEvent
    @crewai_event_bus.on(CrewKickoffStartedEvent)
    async def note(source, event):
        print("the handler ran")
    def build():
        return crew(task(agent(answer("x"))))
    """
    child = host.start(lab(tmp_path, code))
    assert child.result()[-1]["op"] == "finished"
    assert "the handler ran" in child.log()


def test_the_first_run_in_a_storage_folder_offers_no_traces(host, tmp_path):
    code = """
    def build():
        return crew(task(agent(answer("x"))))
    """
    child = host.start(lab(tmp_path, code), storage_dir=str(tmp_path / "new"))
    assert child.result()[-1]["op"] == "finished"
    assert "trac" not in child.log().lower()
