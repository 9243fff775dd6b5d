"""An answer that is an error, in all the shapes that AMP's clients read: `error`/`message`/`details` beside `detail`."""

from collections.abc import Mapping
from typing import Any

import msgspec

from crewcast.contract.webhooks import JSON


class Problem(Exception):
    """An answer that is an error. `details` is an object for programs, `message` a sentence for people."""

    def __init__(
        self,
        status: int,
        error: str,
        message: str,
        details: JSON | None = None,
        headers: Mapping[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        self.body: JSON = {
            "error": error,
            "message": message,
            "detail": message,
            "details": details or {},
            **extra,
        }


def json_object(body: bytes) -> JSON:
    """Raises Problem 400 for anything but a JSON object."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as e:
        raise Problem(400, "Bad Request", f"The body is not JSON: {e}") from e
    if not isinstance(value, dict):
        raise Problem(400, "Bad Request", 'The body must be a JSON object, such as {"inputs": {...}}')
    return value


def invalid(name: str, reason: str) -> Problem:
    """422 for a field of the body."""
    return Problem(422, "Validation Error", f"{name} {reason}", {"field": name})
