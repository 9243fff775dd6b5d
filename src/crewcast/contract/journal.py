"""What a run has journalled, as far as the server looks into it: which tasks are finished, and what is told of them."""

from collections.abc import Mapping

import msgspec

from crewcast.contract.webhooks import JSON

_TASK = "task:"
# Below these, a flow keeps what belongs to one of its crews, or to one execution of a method.
_PARTS = ("crew:", "method:")


def finished_tasks(journal: Mapping[str, bytes]) -> dict[str, JSON]:
    """By task id, in the order in which they were finished: `task_id`, `agent`, `output`, `execution_time`."""
    found = {}
    for name, value in journal.items():
        told = told_of(name, msgspec.json.decode(value))
        if told is not None:
            found[told["task_id"]] = told
    return found


def told_of(name: str, value: JSON | None) -> JSON | None:
    """What an entry tells of a finished task; None for another entry."""
    own = name.partition("/")[2] if name.startswith(_PARTS) else name
    if value is None or not own.startswith(_TASK):
        return None
    told: JSON | None = value.get("told")
    return told
