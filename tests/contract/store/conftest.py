"""A store per test. A new backend is one more parameter here; the tests stay the same."""

import asyncio
import inspect
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from crewcast.store.postgres import PostgresStore
from crewcast.store.protocol import Store
from crewcast.store.sqlite import SQLiteStore
from tests.support.postgres import Databases, databases

ADAPTERS = ("sqlite", "postgres")
WITHIN = 110  # seconds: less than a test has, so that its store is closed too


@pytest.fixture(autouse=True)
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="session")
def postgres() -> Iterator[Databases]:
    with databases() as found:
        yield found


@pytest.fixture
def database_url(postgres: Databases, runner: asyncio.Runner) -> Iterator[str]:
    """A database of the test's own, with the schema."""
    url = runner.run(postgres.new())
    yield url
    runner.run(postgres.drop(url))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every adapter, except where a module is about one."""
    if "store" in metafunc.fixturenames:
        one = [name for name in ADAPTERS if f"test_{name}" in metafunc.module.__name__]
        metafunc.parametrize("store", one or ADAPTERS, indirect=True)


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path, runner: asyncio.Runner) -> Iterator[Store]:
    store: Store
    if request.param == "postgres":
        store = runner.run(PostgresStore.open(request.getfixturevalue("database_url")))
    else:
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
        runner.run(asyncio.wait_for(test, WITHIN))
    return True
