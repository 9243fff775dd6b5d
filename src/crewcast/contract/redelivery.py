"""A request to send events again, taken apart: of one run, or all dead letters of an origin since a time."""

import re
from dataclasses import dataclass
from typing import Any

from crewcast.contract.authentication import Authentication
from crewcast.contract.kickoff import UrlCheck, webhook_authentication, webhook_url
from crewcast.contract.problem import Problem, json_object
from crewcast.contract.webhooks import JSON
from crewcast.core import moment, url

OF_RUN = frozenset({"kickoff_id", "lane", "seq", "dead_only", "url", "authentication"})
OF_ORIGIN = frozenset({"origin", "since", "dead_only", "after", "url", "authentication"})
MAY_BE_NULL = frozenset({"lane", "seq", "dead_only", "after", "url", "authentication"})
_PLACE = re.compile(r"([0-9]{1,15})\.([0-9]{1,15})")


@dataclass(frozen=True, slots=True)
class Where:
    """Another URL than the lane's own. It gets this authentication or none, never the lane's."""

    url: str
    origin: str
    auth: Authentication | None


@dataclass(frozen=True, slots=True)
class OfRun:
    """One event of a run, one lane, or all of its lanes; with `dead_only` what was given up of these."""

    kickoff_id: str
    lane: int | None
    seq: int | None
    dead_only: bool
    where: Where | None


@dataclass(frozen=True, slots=True)
class OfOrigin:
    """The dead letters of an origin since a moment. `after` is where the page before ended."""

    origin: str
    since: int
    after: tuple[str, int, int] | None
    where: Where | None


def parse(body: bytes, check_url: UrlCheck) -> OfRun | OfOrigin:
    """What is to be sent again.

    Raises Problem: 400 for what is not a JSON object, 422 for everything inside it.
    """
    request = {
        name: value
        for name, value in json_object(body).items()
        if value is not None or name not in MAY_BE_NULL
    }
    if "kickoff_id" in request:
        _known(request, OF_RUN, "kickoff_id")
        return OfRun(
            kickoff_id=_text(request, "kickoff_id"),
            lane=_number(request, "lane"),
            seq=_number(request, "seq"),
            dead_only=_flag(request, "dead_only"),
            where=_where(request, check_url),
        )
    if "origin" not in request:
        raise invalid("kickoff_id", "is required, or origin with since and dead_only")
    _known(request, OF_ORIGIN, "origin")
    named = origin("origin", request["origin"])
    if "since" not in request:
        raise invalid("since", "is required beside origin")
    if not _flag(request, "dead_only"):
        raise invalid("dead_only", "must be true beside origin: only what was given up is sent again")
    after = None
    if "after" in request:
        found = _PLACE.fullmatch(_text(request, "after"))
        if found is None:
            raise invalid("after", "must be what the page before had as next")
        after = (named, int(found[1]), int(found[2]))
    return OfOrigin(named, since("since", request["since"]), after, _where(request, check_url))


def next_place(place: tuple[str, int, int]) -> str:
    """What `after` says for the page after this place; the origin is said anyway."""
    return f"{place[1]}.{place[2]}"


def origin(name: str, value: Any) -> str:
    """The origin that a text names, or the one of a longer URL. Raises Problem 422."""
    if not isinstance(value, str):
        raise invalid(name, "must be the origin that deliveries go to, such as https://hooks.example.com")
    try:
        return url.parse(value).origin
    except ValueError as e:
        raise invalid(name, str(e)) from e


def since(name: str, value: Any) -> int:
    """Raises Problem 422."""
    if not isinstance(value, str):
        raise invalid(name, "must be a text such as 2026-01-31T12:00:00Z")
    try:
        return moment.parse(value)
    except ValueError as e:
        raise invalid(name, str(e)) from e


def invalid(name: str, reason: str) -> Problem:
    return Problem(422, "Validation Error", f"{name} {reason}", {"field": name})


def _known(request: JSON, known: frozenset[str], beside: str) -> None:
    """A filter that is misspelt must not send everything."""
    for name in request:
        if name not in known:
            raise invalid(name[:64], f"is not a field of a redelivery with {beside}")


def _where(request: JSON, check_url: UrlCheck) -> Where | None:
    if "url" not in request:
        if "authentication" in request:
            raise invalid("authentication", "is for another url: name it, too; it may be the lane's own")
        return None
    target = webhook_url("url", request["url"], check_url)
    auth = request.get("authentication")
    return Where(
        request["url"],
        target.origin,
        None if auth is None else webhook_authentication("authentication", auth),
    )


def _text(request: JSON, name: str) -> str:
    value = request[name]
    if not isinstance(value, str):
        raise invalid(name, "must be a text")
    return value


def _number(request: JSON, name: str) -> int | None:
    value = request.get(name)
    if value is None:
        return None
    whole = isinstance(value, int | float) and not isinstance(value, bool) and value % 1 == 0
    if not whole or not 0 < value < 10**15:
        raise invalid(name, "must be a whole number from 1")
    return int(value)


def _flag(request: JSON, name: str) -> bool:
    value = request.get(name, False)
    if not isinstance(value, bool):
        raise invalid(name, "must be true or false")
    return value
