"""`make compat`: which Python it takes, and what it says when it takes none."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts/compat.py"
VERSION = "{}.{}".format(*sys.version_info)


@pytest.fixture
def compat():
    spec = importlib.util.spec_from_file_location("compat", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def program(folder, text):
    folder.mkdir()
    file = folder / f"python{VERSION}"
    file.write_text("#!/bin/sh\n" + text)
    file.chmod(0o755)
    return str(folder)


def test_a_python_that_refuses_to_run_is_passed_over(compat, tmp_path, monkeypatch):
    shim = program(tmp_path / "shims", "echo 'command not found' >&2\nexit 127\n")
    other = program(tmp_path / "other", "echo 2.7\necho /usr/bin/python2\n")
    working = program(tmp_path / "bin", f'exec {sys.executable} "$@"\n')
    monkeypatch.setenv("PATH", f"{shim}:{other}:{working}")
    assert compat._python(VERSION) == sys.executable


def test_a_python_that_is_not_there_is_not_found(compat, tmp_path, monkeypatch):
    shim = program(tmp_path / "shims", "exit 127\n")
    monkeypatch.setenv("PATH", shim)
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setenv("UV_PYTHON_INSTALL_DIR", str(tmp_path))
    assert compat._python(VERSION) is None


def test_a_run_without_its_python_is_said_to_be_skipped_and_all_of_them_are_a_failure(
    compat, monkeypatch, capsys
):
    monkeypatch.setattr(compat, "_python", lambda _: None)
    assert compat.main() == 1
    said, complaint = capsys.readouterr()
    assert (
        "skipped: CrewAI 1.10.1 (oldest) on Python 3.12: no Python 3.12 or 3.11 that runs was found" in said
    )
    assert said.count("skipped: ") == len(compat.RUNS)
    assert complaint == "compat: nothing ran\n"


@pytest.mark.parametrize(("passes", "status", "word"), [(True, 0, "passed"), (False, 1, "FAILED")])
def test_a_run_that_fails_fails_all_and_one_is_enough(compat, monkeypatch, capsys, passes, status, word):
    monkeypatch.setattr(compat, "_python", {"3.11": "/bin/python3.11"}.get)
    monkeypatch.setattr(compat, "_environment", lambda name, python, requirements: Path(name, python))
    monkeypatch.setattr(compat, "_test", lambda python: passes)
    monkeypatch.setattr(compat, "time", SimpleNamespace(monotonic=iter([0, 7, 100, 160]).__next__))
    assert compat.main() == status
    said = capsys.readouterr().out
    assert f"compat: {word}: CrewAI 1.10.1 (oldest) on Python 3.11 (7 s)" in said
    assert f"compat: {word}: CrewAI 1.14.7 (middle) on Python 3.11 (60 s)" in said
    assert said.count("skipped: ") == 2
