"""The body of a kickoff, taken apart."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import msgspec

from crewcast.contract import authentication
from crewcast.contract.authentication import Authentication
from crewcast.contract.problem import Problem, invalid, json_object
from crewcast.contract.terms import Terms, parse_limits, parse_review, parse_seconds, parse_whole
from crewcast.contract.webhooks import JSON
from crewcast.core import url
from crewcast.core.backoff import SECOND
from crewcast.core.event import Channel
from crewcast.core.lane import Lane

URL_FIELDS = {
    "taskWebhookUrl": Channel.TASK,
    "stepWebhookUrl": Channel.STEP,
    "crewWebhookUrl": Channel.CREW,
    "humanInputWebhookUrl": Channel.HUMAN_INPUT,
}
# AMP's other way to name the last one: an object with its URL and its authentication.
HUMAN_INPUT = "humanInputWebhook"
# Fields of AMP that are taken and kept, and not acted upon yet.
KEPT_FIELDS = ("webhooks", "restoreFromStateId")
AUTH_FIELD = "webhookAuthentication"
ORDERINGS = ("lane", "none")
TERMS = ("limits", "review", "timeout", "priority", "max_attempts")
KNOWN_FIELDS = frozenset(
    {"inputs", "meta", "ordering", AUTH_FIELD, HUMAN_INPUT, *URL_FIELDS, *TERMS, *KEPT_FIELDS}
)
PRIORITIES = (-100, 100)
MOST_ATTEMPTS = 100
# What CrewAI itself takes beside a flow's state.
FLOW_INPUTS = frozenset({"id", "crewai_trigger_payload"})
MAX_META_BYTES = 16 * 1024

UrlCheck = Callable[[url.Target], str | None]
Seal = Callable[[Authentication, str, str], bytes]  # for a run's id and a URL


@dataclass(frozen=True, slots=True)
class Kickoff:
    """A kickoff that can be started. `lanes` have distinct URLs; `warnings` are for the answer. `ordered`: each
    URL gets its events one by one. `auth` has the authentication of those URLs that have one: it is sealed
    before it is stored. `timeout` is in microseconds of work; None, as of `max_attempts`: as the server is set.
    """

    inputs: JSON
    meta: JSON | None
    lanes: list[tuple[str, url.Target, Channel]]
    terms: Terms
    warnings: list[str] = field(default_factory=list)
    ordered: bool = True
    priority: int = 0
    timeout: int | None = None
    max_attempts: int | None = None
    auth: dict[str, Authentication] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CrewInputs:
    """What is known of a crew's inputs: all `names`, those of them that are `required`, `only` if it takes no others (a
    flow's state), `derives` if a `@before_kickoff` may make some itself, `prompts` if they are put into prompts (a
    flow's are not).
    """

    names: Sequence[str]
    required: Sequence[str]
    only: bool = False
    derives: bool = False
    prompts: bool = True


def parse_kickoff(body: bytes, crew: CrewInputs | None, check_url: UrlCheck) -> Kickoff:
    """The kickoff in a request body; `crew` is None while CrewAI still loads.

    Raises Problem: 400 for what is not a JSON object, 422 for everything inside it.
    """
    request = json_object(body)
    warnings = _warnings(request)
    inputs = _inputs(request, crew, warnings)
    meta = request.get("meta")
    if meta is not None and not isinstance(meta, dict):
        raise invalid("meta", "must be an object")
    if meta is not None and len(msgspec.json.encode(meta)) > MAX_META_BYTES:
        raise invalid("meta", f"is larger than {MAX_META_BYTES} bytes, and every event would carry it")
    limits = parse_limits(request.get("limits"))
    seconds = [limits.seconds, parse_seconds("timeout", request.get("timeout"))]
    timeout = min((int(limit * SECOND) for limit in seconds if limit is not None), default=None)
    subscribers = parse_subscribers(request, check_url, warnings)
    return Kickoff(
        inputs=inputs,
        meta=meta,
        lanes=subscribers.lanes,
        terms=Terms(
            limits=limits,
            review=parse_review(request.get("review")),
            **{name: _public(request.get(name)) for name in KEPT_FIELDS},
        ),
        warnings=warnings,
        ordered=_ordered(request),
        auth=subscribers.auth,
        priority=parse_whole("priority", request.get("priority"), *PRIORITIES) or 0,
        timeout=timeout,
        max_attempts=parse_whole("max_attempts", request.get("max_attempts"), 1, MOST_ATTEMPTS),
    )


@dataclass(frozen=True, slots=True)
class Subscribers:
    """The webhooks of a request: distinct URLs with their channels, and the authentication of some."""

    lanes: list[tuple[str, url.Target, Channel]]
    auth: dict[str, Authentication]


def parse_subscribers(request: JSON, check_url: UrlCheck, warnings: list[str]) -> Subscribers:
    """Raises Problem 422."""
    lanes, auth = _lanes(request, check_url), _auth(request, warnings)
    human = request.get(HUMAN_INPUT)
    if human is None:
        return Subscribers(lanes, auth)
    if not isinstance(human, dict):
        raise invalid(
            HUMAN_INPUT, 'must be an object such as {"url": "https://...", "authentication": {...}}'
        )
    target = webhook_url(f"{HUMAN_INPUT}.url", human.get("url"), check_url)
    text: str = human["url"]
    found = {link: (to, channels) for link, to, channels in lanes}
    _, channels = found.get(text, (target, Channel(0)))
    found[text] = (target, channels | Channel.HUMAN_INPUT)
    if human.get("authentication") is not None:
        own = webhook_authentication(f"{HUMAN_INPUT}.authentication", human["authentication"])
        if auth.setdefault(text, own) != own:
            raise invalid(
                f"{HUMAN_INPUT}.authentication", "is another than that of the same URL in another field"
            )
    return Subscribers([(link, to, mask) for link, (to, mask) in found.items()], auth)


def new_lanes(run_id: str, kickoff: Kickoff, seal: Seal) -> list[Lane]:
    return [
        Lane(
            run_id=run_id,
            number=n,
            url=text,
            origin=target.origin,
            channels=channels,
            ordered=kickoff.ordered,
            auth=None if (auth := kickoff.auth.get(text)) is None else seal(auth, run_id, text),
        )
        for n, (text, target, channels) in enumerate(kickoff.lanes, 1)
    ]


def _warnings(request: JSON) -> list[str]:
    warnings = []
    for name in request:
        if name not in KNOWN_FIELDS:
            near = get_close_matches(name, KNOWN_FIELDS, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            warnings.append(f"{name!r} is not a field of a kickoff and was ignored{hint}")
        elif name in KEPT_FIELDS and request[name] is not None:
            cut = " without its authentication" if _public(request[name]) != request[name] else ""
            warnings.append(f"{name!r} was stored{cut} and is not served yet")
    return warnings


def _inputs(request: JSON, crew: CrewInputs | None, warnings: list[str]) -> JSON:
    needed = list(crew.required) if crew is not None else []
    known = set(crew.names) if crew is not None else set()
    inputs = request.get("inputs")
    if inputs is None:
        raise Problem(
            422,
            "Validation Error",
            'Missing required inputs: the body needs "inputs", an object'
            + (f" with {', '.join(needed)}" if needed else ""),
            {"missing_inputs": needed},
        )
    if not isinstance(inputs, dict):
        raise invalid("inputs", "must be an object of input names and values")
    misplaced = [
        name for name in (*URL_FIELDS, HUMAN_INPUT, AUTH_FIELD) if name in inputs and name not in known
    ]
    if misplaced:
        names = ", ".join(misplaced)
        raise Problem(
            422,
            "Validation Error",
            f"{names} is inside `inputs`; did you mean it beside `inputs`, at the top of the body?",
            {"misplaced": misplaced},
        )
    missing = [name for name in needed if name not in inputs]
    if missing and crew is not None and crew.derives:
        warnings.append(f"the crew's @before_kickoff is expected to make: {', '.join(missing)}")
    elif missing:
        raise Problem(
            422,
            "Validation Error",
            f"Missing required inputs: {', '.join(missing)}",
            {"missing_inputs": missing},
        )
    warnings += _odd_inputs(inputs, crew)
    return inputs


def _odd_inputs(inputs: JSON, crew: CrewInputs | None) -> list[str]:
    """What is no error, and most likely not meant."""
    if crew is None:
        return []
    if crew.prompts:
        return [
            f"input {name!r} is not a plain value; CrewAI puts str() of it into prompts"
            for name, value in inputs.items()
            if isinstance(value, (dict, list)) or value is None
        ]
    if not crew.only:
        return []
    warnings = []
    for name in inputs:
        if name not in crew.names and name not in FLOW_INPUTS:
            near = get_close_matches(name, crew.names, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            warnings.append(f"input {name!r} is no field of the flow's state{hint}")
    return warnings


def _ordered(request: JSON) -> bool:
    ordering = request.get("ordering")
    if ordering is not None and ordering not in ORDERINGS:
        raise invalid("ordering", 'must be "lane" or "none"')
    return ordering != "none"


def _lanes(request: JSON, check_url: UrlCheck) -> list[tuple[str, url.Target, Channel]]:
    found: dict[str, tuple[url.Target, Channel]] = {}
    for name, channel in URL_FIELDS.items():
        text = request.get(name)
        if text is None:
            continue
        target = webhook_url(name, text, check_url)
        _, channels = found.get(text, (target, Channel(0)))
        found[text] = (target, channels | channel)
    return [(text, target, channels) for text, (target, channels) in found.items()]


def webhook_url(name: str, text: Any, check_url: UrlCheck) -> url.Target:
    """Where a URL in the field `name` leads.

    Raises Problem 422 for one that may not be a webhook.
    """
    if not isinstance(text, str):
        raise invalid(name, "must be a text, an absolute http(s) URL")
    try:
        target = url.parse(text)
    except ValueError as e:
        raise invalid(name, str(e)) from e
    if reason := check_url(target):
        raise invalid(name, reason)
    return target


def _auth(request: JSON, warnings: list[str]) -> dict[str, Authentication]:
    """The authentication of each URL: one for all of them, or one by the field that names the URL."""
    value = request.get(AUTH_FIELD)
    if value is None:
        return {}
    if not isinstance(value, dict) or "strategy" in value or not set(value) <= set(URL_FIELDS):
        by_field = dict.fromkeys(URL_FIELDS, webhook_authentication(AUTH_FIELD, value))
    else:
        by_field = {
            name: webhook_authentication(f"{AUTH_FIELD}.{name}", one)
            for name, one in value.items()
            if one is not None
        }
        warnings += [
            f"'{AUTH_FIELD}' has one for {name!r}, which is not given"
            for name in by_field
            if request.get(name) is None
        ]
    found: dict[str, Authentication] = {}
    for name, auth in by_field.items():
        text = request.get(name)
        if text is not None and found.setdefault(text, auth) != auth:
            raise invalid(f"{AUTH_FIELD}.{name}", "is another than that of the same URL in another field")
    return found


def webhook_authentication(name: str, value: Any) -> Authentication:
    """Raises Problem 422, without any of the values in it."""
    try:
        return authentication.parse(value)
    except authentication.Unusable as e:
        raise invalid(f"{name}.{e.place}" if e.place else name, e.reason) from None


def _public(value: Any) -> Any:
    """A webhook, or a list of them, without what authenticates: the rest is stored as it is."""
    if isinstance(value, list):
        return [_public(one) if isinstance(one, dict) else one for one in value]
    if isinstance(value, dict):
        return {name: one for name, one in value.items() if name != "authentication"}
    return value
