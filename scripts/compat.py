"""Run tests/crewai on the oldest, a middle and the newest supported CrewAI, and on the Pythons that `make test` does not use.

An environment is made under .cache/compat for each run, from the requirements pinned by hash. A Python that is not on
this machine is skipped and said so; nothing is downloaded but packages, and at least one run must take place.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
ENVIRONMENTS = REPOSITORY / ".cache" / "compat"
UV = str(Path(sys.executable).parent / "uv")
# What to install, and the Pythons of which the first one found is taken.
RUNS = [
    ("oldest", "requirements/compat-oldest.txt", ["3.12", "3.11"]),
    ("middle", "requirements/compat-middle.txt", ["3.12", "3.11"]),
    ("newest", "requirements/dev.txt", ["3.12"]),
    ("newest", "requirements/dev.txt", ["3.13"]),
]


def main() -> int:
    ran, failed = 0, 0
    report = []
    for name, requirements, versions in RUNS:
        title = f"{_crewai(requirements)} ({name}) on Python {versions[0]}"
        found = next(((version, python) for version in versions if (python := _python(version))), None)
        if found is None:
            report.append(f"skipped: {title}: no Python {' or '.join(versions)} that runs was found")
            continue
        version, python = found
        title = f"{_crewai(requirements)} ({name}) on Python {version}"
        print(f"compat: {title}: {python}", flush=True)
        begin = time.monotonic()
        passed = _test(_environment(f"{name}-{version}", python, REPOSITORY / requirements))
        ran, failed = ran + 1, failed + (not passed)
        report.append(f"{'passed' if passed else 'FAILED'}: {title} ({time.monotonic() - begin:.0f} s)")
    for line in report:
        print(f"compat: {line}")
    if not ran:
        print("compat: nothing ran", file=sys.stderr)
    return 0 if ran and not failed else 1


def _crewai(requirements: str) -> str:
    lines = (REPOSITORY / requirements).read_text(encoding="utf-8").splitlines()
    return next("CrewAI " + line.split("==")[1].split()[0] for line in lines if line.startswith("crewai=="))


def _python(version: str) -> str | None:
    """An interpreter of this version that runs: a shim of pyenv may be on PATH and refuse to."""
    for candidate in _candidates(version):
        asked = [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2]); print(sys.executable)"]
        try:
            told = subprocess.run(asked, capture_output=True, text=True, check=False)
        except OSError:
            continue
        if told.returncode == 0 and told.stdout.startswith(version + "\n"):
            return told.stdout.splitlines()[1]
    return None


def _candidates(version: str) -> Iterator[str]:
    name = "python" + version
    for folder in os.get_exec_path():
        if found := shutil.which(name, path=folder):
            yield found
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from sorted(map(str, pyenv.glob(f"versions/{version}.*/bin/{name}")))
    # One that uv has installed, wherever it keeps them.
    asked = [UV, "python", "find", "--managed-python", "--no-python-downloads", version]
    told = subprocess.run(asked, capture_output=True, text=True, check=False)
    if told.returncode == 0:
        yield told.stdout.strip()


def _environment(name: str, python: str, requirements: Path) -> Path:
    """The interpreter of an environment that holds exactly what is required."""
    folder = ENVIRONMENTS / name
    made_of = hashlib.sha256(f"{python}\n".encode() + requirements.read_bytes()).hexdigest()
    stamp = folder / ".made-of"
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != made_of:
        _uv("venv", "--quiet", "--clear", "--no-python-downloads", "--python", python, str(folder))
        install = ["pip", "sync", "--quiet", "--compile-bytecode", "--require-hashes", str(requirements)]
        _uv(*install, environment=folder)
        stamp.write_text(made_of, encoding="utf-8")
    return folder / "bin" / "python"


def _uv(*arguments: str, environment: Path | None = None) -> None:
    variables = {**os.environ, "VIRTUAL_ENV": str(environment)} if environment else None
    subprocess.run([UV, *arguments], check=True, env=variables)


def _test(python: Path) -> bool:
    """Whether the tests pass there. Crewcast itself is on the path, not installed."""
    command = [str(python), "-m", "pytest", "tests/crewai", "-rs"]
    variables = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}
    return subprocess.run(command, cwd=REPOSITORY, env=variables, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
