import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest
import uvloop

from tests.contract.sender.listeners import Listeners
from tests.contract.sender.subscriber import Authority

T = TypeVar("T")


@pytest.fixture(params=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, T]], T]:
    """Runs a scenario to its end on a fresh loop of either kind."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def runner(scenario: Coroutine[Any, Any, T]) -> T:
        with asyncio.Runner(loop_factory=factory) as loop:
            return loop.run(asyncio.wait_for(scenario, 60))

    return runner


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def listeners() -> Iterator[Listeners]:
    for _ in range(20):
        with contextlib.suppress(OSError):  # the port is taken on one of the other addresses
            listening = Listeners()
            break
    yield listening
    listening.close()
