"""The named queries of both engines: what the code runs is there, and what is there is run."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

import crewcast.store
from crewcast.store.postgres.session import load_queries as postgres_queries
from crewcast.store.sqlite.session import load_queries as sqlite_queries

STORE = Path(crewcast.store.__file__).parent
QUERIES: dict[str, Callable[[], Mapping[str, object]]] = {
    "sqlite": sqlite_queries,
    "postgres": postgres_queries,
}
NAMED = re.compile(
    r'(?:\.(?:_?all|first|write|write_rows|records|insert|_written)\(\s*|name = )"(\w+)"|else "(\w+)"|"(sweep_\w+|release_lane|park_lanes|forget_\w+)"'
)


def names(engine: str) -> set[str]:
    """Those in the code of an engine and in the rules that it shares."""
    files = [STORE / "reading.py", *(STORE / engine).glob("*.py"), *(STORE / "verbs").glob("*.py")]
    return {name for file in files for found in NAMED.findall(file.read_text()) for name in found if name}


@pytest.mark.parametrize("engine", QUERIES)
def test_every_query_that_is_run_exists(engine: str):
    assert names(engine) - set(QUERIES[engine]()) <= {"crewcast", "lock"}


@pytest.mark.parametrize("engine", QUERIES)
def test_every_query_is_run(engine: str):
    assert set(QUERIES[engine]()) - names(engine) == set()
