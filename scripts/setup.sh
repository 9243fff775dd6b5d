#!/bin/sh
# Creates the virtual environment and installs everything that is pinned in requirements/, by hash.
# usage: setup.sh PYTHON VENV
set -eu
python=$1
# Absolute, or uv would take an environment that is active instead.
venv=$(cd "$(dirname "$2")" && pwd)/$(basename "$2")

if ! command -v "$python" >/dev/null 2>&1; then
  echo "setup: $python was not found. Install Python 3.11 to 3.13, or name one: make PYTHON=/path/to/python" >&2
  exit 1
fi
if ! "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'; then
  echo "setup: $("$python" --version) is not supported. Crewcast needs Python 3.11 to 3.13: make PYTHON=/path/to/python" >&2
  exit 1
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  if [ -f /etc/debian_version ] && [ "$(id -u)" = 0 ]; then
    apt-get update -qq && apt-get install -y -qq "python$version-venv" >/dev/null
  else
    echo "setup: this Python cannot make virtual environments. Run: sudo apt-get install python$version-venv" >&2
    exit 1
  fi
fi

echo "Installing into $venv what requirements/dev.txt pins: CrewAI alone is about 1 GB, so the first time takes a moment."
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
# Compiled now, or every start would compile CrewAI's two thousand modules where bytecode is not written.
VIRTUAL_ENV=$venv "$venv/bin/uv" pip sync --quiet --compile-bytecode --require-hashes requirements/dev.txt
# The project itself: editable, without touching the pinned set, built by the pinned hatchling.
VIRTUAL_ENV=$venv "$venv/bin/uv" pip install --quiet --no-deps --no-build-isolation --editable .
