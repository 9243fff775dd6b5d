"""CrewAI is imported once, before the first of these tests, in the same state for all of them.

Its imports warn (deprecations of its own), and warnings are errors here: whichever test came first would fail.
"""

import importlib
import os
import warnings

import pytest


@pytest.fixture(scope="session", autouse=True)
def crewai_is_imported():
    os.environ.setdefault("CREWAI_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("CREWAI_TRACING_ENABLED", "false")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("crewai", "crewai_tools"):
            importlib.import_module(name)
