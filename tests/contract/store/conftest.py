"""A store per test. A new backend is one more parameter here; the tests stay the same."""

import asyncio
import inspect
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from crewcast.store.protocol import Store
from crewcast.store.sqlite import SQLiteStore


@pytest.fixture(autouse=True)
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(params=["sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path, runner: asyncio.Runner) -> Iterator[Store]:
    store = runner.run(SQLiteStore.open(tmp_path / "data"))
    yield store
    runner.run(store.close())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """A coroutine function is run in the loop that its store lives in."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    runner: asyncio.Runner = pyfuncitem.funcargs["runner"]  # type: ignore[assignment]
    with closing(pyfuncitem.obj(**arguments)) as test:
        runner.run(asyncio.wait_for(test, 60))
    return True
