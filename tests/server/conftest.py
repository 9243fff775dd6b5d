"""One server for all tests that only ask; those that kill or stop start their own."""

import pytest

from tests.support.receiver import Receiver
from tests.support.server import CLASSIC, ServerProcess


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """`crewcast dev examples/classic --stub-llm`, loaded."""
    data = tmp_path_factory.mktemp("data")
    with ServerProcess(CLASSIC, data, "--stub-llm", "--stub-delay", "0.01", "--max-runs", "20") as process:
        process.wait_until_ready()
        yield process


@pytest.fixture
def receiver():
    with Receiver() as listening:
        yield listening
