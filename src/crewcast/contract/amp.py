"""The bodies of the AMP API: a kickoff taken apart, a status put together, an error in all its shapes.

Where AMP's published descriptions and the deployed AMP differ, both are served side by side:
`status` beside `state`, `error`/`message`/`details` beside `detail`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import msgspec

from crewcast.contract import authentication
from crewcast.contract.authentication import Authentication
from crewcast.contract.webhooks import JSON
from crewcast.core import url
from crewcast.core.event import Channel, Event
from crewcast.core.lane import Lane
from crewcast.core.run import Run, RunState, seconds

URL_FIELDS = {
    "taskWebhookUrl": Channel.TASK,
    "stepWebhookUrl": Channel.STEP,
    "crewWebhookUrl": Channel.CREW,
}
# Fields of AMP that are taken and kept, and not acted upon yet.
KEPT_FIELDS = ("humanInputWebhook", "humanInputWebhookUrl", "webhooks", "restoreFromStateId")
AUTH_FIELD = "webhookAuthentication"
ORDERINGS = ("lane", "none")
KNOWN_FIELDS = frozenset({"inputs", "meta", "ordering", AUTH_FIELD, *URL_FIELDS, *KEPT_FIELDS})
# What CrewAI itself takes beside a flow's state.
FLOW_INPUTS = frozenset({"id", "crewai_trigger_payload"})
MAX_META_BYTES = 16 * 1024

STATES = {
    RunState.QUEUED: ("running", "PENDING"),
    RunState.RUNNING: ("running", "STARTED"),
    RunState.WAITING: ("awaiting_human_feedback", "PAUSED"),
    RunState.COMPLETED: ("completed", "SUCCESS"),
    RunState.FAILED: ("error", "FAILED"),
    RunState.CANCELLED: ("error", "REVOKED"),
}

UrlCheck = Callable[[url.Target], str | None]
Seal = Callable[[Authentication, str, str], bytes]  # for a run's id and a URL


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


@dataclass(frozen=True, slots=True)
class Kickoff:
    """A kickoff that can be started. `lanes` have distinct URLs; `warnings` are for the answer. `ordered`: each
    URL gets its events one by one. `auth` has the authentication of those URLs that have one: it is sealed
    before it is stored.
    """

    inputs: JSON
    meta: JSON | None
    lanes: list[tuple[str, url.Target, Channel]]
    options: JSON
    warnings: list[str] = field(default_factory=list)
    ordered: bool = True
    auth: dict[str, Authentication] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CrewInputs:
    """What is known of a crew's inputs: all `names`, those of them that are `required`, `only` if it takes no others (a
    flow's state), `derives` if a `@before_kickoff` may make some itself.
    """

    names: Sequence[str]
    required: Sequence[str]
    only: bool = False
    derives: bool = False


def parse_kickoff(body: bytes, crew: CrewInputs | None, check_url: UrlCheck) -> Kickoff:
    """The kickoff in a request body; `crew` is None while CrewAI still loads.

    Raises Problem: 400 for what is not a JSON object, 422 for everything inside it.
    """
    request = json_object(body)
    warnings = _warnings(request)
    inputs = _inputs(request, crew, warnings)
    meta = request.get("meta")
    if meta is not None and not isinstance(meta, dict):
        raise _invalid("meta", "must be an object")
    if meta is not None and len(msgspec.json.encode(meta)) > MAX_META_BYTES:
        raise _invalid("meta", f"is larger than {MAX_META_BYTES} bytes, and every event would carry it")
    return Kickoff(
        inputs=inputs,
        meta=meta,
        lanes=_lanes(request, check_url),
        options={name: _public(request[name]) for name in KEPT_FIELDS if request.get(name) is not None},
        warnings=warnings,
        ordered=_ordered(request),
        auth=_auth(request, warnings),
    )


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
                raise _invalid(name, f"must be {what}")
            return value
    raise _invalid(names[0], "is required")


def json_object(body: bytes) -> JSON:
    """Raises Problem 400 for anything but a JSON object."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as e:
        raise Problem(400, "Bad Request", f"The body is not JSON: {e}") from e
    if not isinstance(value, dict):
        raise Problem(400, "Bad Request", 'The body must be a JSON object, such as {"inputs": {...}}')
    return value


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


def status(run: Run, now: int, crew_event: Event | None, total_tasks: int | None) -> JSON:
    """The answer of `GET /status/{kickoff_id}`; `crew_event` is the run's last if it has ended."""
    word, state = STATES[run.state]
    total = run.total_tasks if run.total_tasks is not None else total_tasks
    body: JSON = {
        "kickoff_id": run.id,
        "execution_id": run.id,
        "crew": run.crew,
        "status": word,
        "state": state,
        "progress": {"completed_tasks": run.completed_tasks, "total_tasks": total},
    }
    if total is None:
        del body["progress"]["total_tasks"]
    if run.current_task is not None:
        body["current_task"] = run.current_task
    if run.started_at is not None:
        body["execution_time"] = seconds(run, now)
    if crew_event is not None:
        told = msgspec.json.decode(crew_event.whole or crew_event.body)
        body |= {name: told[name] for name in ("result", "error", "execution_time") if name in told}
    if run.error_detail is not None:
        body["traceback"] = run.error_detail
    return body


def unknown_run(run_id: str) -> Problem:
    return Problem(
        404,
        "Execution not found",
        f"There is no execution {run_id[:64]!r} here",
        state="NOT FOUND",
    )


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
        raise _invalid("inputs", "must be an object of input names and values")
    misplaced = [name for name in (*URL_FIELDS, AUTH_FIELD) if name in inputs and name not in known]
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
    if crew is None or not crew.only:
        return [
            f"input {name!r} is not a plain value; CrewAI puts str() of it into prompts"
            for name, value in inputs.items()
            if isinstance(value, (dict, list)) or value is None
        ]
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
        raise _invalid("ordering", 'must be "lane" or "none"')
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
        raise _invalid(name, "must be a text, an absolute http(s) URL")
    try:
        target = url.parse(text)
    except ValueError as e:
        raise _invalid(name, str(e)) from e
    if reason := check_url(target):
        raise _invalid(name, reason)
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
            raise _invalid(f"{AUTH_FIELD}.{name}", "is another than that of the same URL in another field")
    return found


def webhook_authentication(name: str, value: Any) -> Authentication:
    """Raises Problem 422, without any of the values in it."""
    try:
        return authentication.parse(value)
    except authentication.Unusable as e:
        raise _invalid(f"{name}.{e.place}" if e.place else name, e.reason) from None


def _public(value: Any) -> Any:
    """A webhook, or a list of them, without what authenticates: the rest is stored as it is."""
    if isinstance(value, list):
        return [_public(one) if isinstance(one, dict) else one for one in value]
    if isinstance(value, dict):
        return {name: one for name, one in value.items() if name != "authentication"}
    return value


def _invalid(name: str, reason: str) -> Problem:
    return Problem(422, "Validation Error", f"{name} {reason}", {"field": name})
