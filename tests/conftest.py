"""For several processes at once (`make test`): each test has a name of its own, and files that take long come first."""

import contextlib
from collections import Counter

import pytest

with contextlib.suppress(ImportError):  # `make compat` has none of the tests that need it
    from hypothesis import HealthCheck, settings

    # By default an example that takes longer than 200 ms fails its test, also where only the machine was busy.
    settings.register_profile("crewcast", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("crewcast")

# Folders, in which the files come in any order; all the others take seconds together. Or the last long file would run
# alone at the end.
LONG = ("cluster", "crash", "server", "crewai", "documents", "sender")


@pytest.hookimpl(trylast=True)  # pytest-randomly has shuffled them
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    twice = [name for name, count in Counter(item.nodeid for item in items).items() if count > 1]
    if twice:
        raise pytest.UsageError(f"of several tests with one name pytest-xdist runs one: {twice}")
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: _rank(item.path.parent.name))


def _rank(folder: str) -> int:
    return LONG.index(folder) if folder in LONG else len(LONG)
