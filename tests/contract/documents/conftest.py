"""Each operation that schemathesis asks is a test of its own by its name, too: pytest 9.2 leaves it out."""

from typing import Any

import pytest


def pytest_itemcollected(item: pytest.Item) -> None:
    label = getattr(item, "operation_label", None)
    if label is not None and label not in item.nodeid:
        node: Any = item
        node._id = node._id.with_params(label)
