"""CrewAI is imported once, before the first of these tests, in the same state for all of them.

Its imports warn (deprecations of its own), and warnings are errors here: whichever test came first would fail.
"""

import importlib
import os
import socket
import threading
import time
import warnings
from collections.abc import Iterator

import pytest
import uvicorn

from crewcast.stub_llm import create_app
from tests.crewai.driver import Host, lab
from tests.crewai.told import Told


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
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        # CrewAI never closes its HTTP clients; kept-alive sockets would be reported in whichever test they die.
        config = uvicorn.Config(
            create_app(), log_level="warning", lifespan="off", headers=[("connection", "close")]
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        server.should_exit = True
        thread.join(timeout=10)


@pytest.fixture(scope="session")
def lab_host():
    """One host for all tests that only run crews."""
    host = Host()
    assert host.greeting[1]["op"] == "ready", host.greeting
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
