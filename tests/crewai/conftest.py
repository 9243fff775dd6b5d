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


@pytest.fixture(scope="session", autouse=True)
def crewai_is_imported():
    os.environ.setdefault("CREWAI_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("CREWAI_TRACING_ENABLED", "false")
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
