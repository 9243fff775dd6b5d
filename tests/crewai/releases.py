"""Which CrewAI the tests run with, and a mark for what only some releases have.

A test of something that older releases have not says so: `@since("1.15.0", "JSON-first crews")`. Nothing is skipped
on the newest release.
"""

import importlib.metadata

import pytest


def release(version):
    """`1.15.30` as numbers; of a pre-release, what it is to become."""
    return tuple(int(number) for number in version.split("rc")[0].split("a")[0].split("b")[0].split("."))


CREWAI = release(importlib.metadata.version("crewai"))


def has(first):
    """Whether this release is `first` or a later one."""
    return release(first) <= CREWAI


def since(first, what):
    return pytest.mark.skipif(not has(first), reason=f"CrewAI has {what} since {first}")
