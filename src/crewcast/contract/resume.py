"""A person's decision as `POST /resume` takes it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from crewcast.contract.problem import invalid, json_object
from crewcast.contract.webhooks import JSON


@dataclass(frozen=True, slots=True)
class Resume:
    """A person's decision about the task at which a run waits."""

    kickoff_id: str
    task_id: str
    feedback: str
    approve: bool


def parse_resume(body: bytes) -> Resume:
    """The decision in a request body, in snake or camel case, as AMP's documents and its server have it.

    Raises Problem: 400 for what is not a JSON object, 422 for everything inside it.
    """
    request = json_object(body)
    kickoff_id = _field(request, ("execution_id", "executionId", "kickoff_id", "kickoffId"), str, "a text")
    task_id = _field(request, ("task_id", "taskId"), (str, int), "a text")
    feedback = _field(request, ("human_feedback", "humanFeedback"), str, "a text")
    approve = _field(request, ("is_approve", "isApprove"), bool, "true or false")
    return Resume(kickoff_id, str(task_id), feedback, approve)


def _field(request: JSON, names: Sequence[str], kind: type | tuple[type, ...], what: str) -> Any:
    for name in names:
        value = request.get(name)
        if value is not None:
            # In Python a truth is a number too.
            if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
                raise invalid(name, f"must be {what}")
            return value
    raise invalid(names[0], "is required")
