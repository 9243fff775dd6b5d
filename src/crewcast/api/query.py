"""Numbers in a request's query."""

from starlette.requests import Request

from crewcast.contract.problem import Problem

PAGE = 100


def number(request: Request, name: str, default: int) -> int:
    """Raises Problem 422 for what is no whole number from 0."""
    found = digits(request.query_params.get(name, str(default)))
    if found is None:
        raise Problem(422, "Validation Error", f"{name} must be a whole number from 0", {"field": name})
    return found


def digits(text: str) -> int | None:
    """The number that 1 to 15 of the digits 0 to 9 are; Python would take other scripts' digits too."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else None
