"""CrewAI is imported once, before the first of these tests, in the same state for all of them.

Its imports warn (deprecations of its own), and warnings are errors here: whichever test came first would fail.
"""

import importlib
import os
import sys
import warnings
from collections.abc import Iterator

import pytest

from tests.crewai.driver import Host, lab
from tests.crewai.flow_lab import flow_lab, tell
from tests.crewai.told import Told
from tests.support.stub import offline_llm


@pytest.fixture(scope="session", autouse=True)
def crewai_is_imported():
    os.environ.setdefault("CREWAI_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("CREWAI_TRACING_ENABLED", "false")
    # Or releases before 1.13 ask at the end of a first run whether its traces are of interest.
    os.environ.setdefault("CREWAI_TESTING", "true")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("crewai", "crewai_tools"):
            importlib.import_module(name)


@pytest.fixture(scope="session")
def base_url() -> Iterator[str]:
    """The offline LLM on a real socket."""
    with offline_llm() as url:
        yield url


@pytest.fixture(scope="session")
def lab_host():
    """One host for all tests that only run crews."""
    host = Host()
    assert host.greeting[1]["op"] == "ready", host.greeting
    yield host
    assert host.close() == 0


@pytest.fixture(scope="session")
def flow_host():
    host = Host(sys.executable, "--memory")
    # One thread, so that forking is safe, also with what the memory needs.
    assert (host.greeting[1]["op"], host.greeting[1]["threads"]) == ("ready", 1), host.greeting
    yield host
    assert host.close() == 0


@pytest.fixture
def start(lab_host, tmp_path):
    """A child at work on the crew that `build()` in this code returns."""

    def start(code, **fields):
        return lab_host.start(lab(tmp_path, code), **fields)

    yield start
    lab_host.hang_up()


@pytest.fixture
def run(start):
    """What is told of a crew, from its start to its end."""

    def run(code, **fields):
        child = start(code, **fields)
        told = Told(child.run_id, child.result())
        told.log = child.log()
        return told

    return run


@pytest.fixture(scope="session")
def stub_llm(base_url):
    """What a job says of the offline LLM."""
    return {"base_url": base_url}


@pytest.fixture
def start_flow(flow_host, tmp_path):
    """A child at work on the flow in this code, as a server has it: with a journal. `files` are more of the project's."""

    def start(code, op="run", files=(), **fields):
        for name, text in dict(files).items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text, "utf-8")
        project = flow_lab(tmp_path, code)
        return flow_host.start(tmp_path, op=op, about=project.job(), **{"journal": {}, **fields})

    yield start
    flow_host.hang_up()


@pytest.fixture
def run_flow(start_flow):
    """All that the flow told, held to what is true of every run."""
    return lambda code, **fields: tell(start_flow(code, **fields))


@pytest.fixture
def describe_flow(start_flow):
    def describe(code, **fields):
        [told] = start_flow(code, op="describe", **fields).result()
        return told

    return describe
