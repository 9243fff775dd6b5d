"""The webhook payloads and headers: the one place where an event gets its wire form.

The bodies have exactly the fields of `amp-webhooks.asyncapi.yaml` (beside this file). Optional
fields are absent, never null.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from crewcast.contract.authentication import Authentication
from crewcast.core import moment
from crewcast.core.event import Channel, Event
from crewcast.core.lane import Lane

JSON = dict[str, Any]

# Where long texts live in a payload: only these are cut when an event is too large.
_CUTTABLE = frozenset({"output", "content", "error", "input", "task_output"})


@dataclass(frozen=True, slots=True)
class Draft:
    """An event before it has a number: what happened, in the words of the document."""

    channel: Channel
    type: str
    payload: JSON
    at: int
    task_id: str | None = None


def task_completed(
    kickoff_id: str,
    task_id: str,
    status: str,
    at: int,
    *,
    agent: str | None = None,
    output: str | None = None,
    execution_time: float | None = None,
    meta: JSON | None = None,
) -> Draft:
    """`TaskCompletedPayload`; `status` is completed, error or awaiting_human_feedback; seconds."""
    payload = _present(
        kickoff_id=kickoff_id,
        task_id=task_id,
        agent=agent,
        status=status,
        output=output,
        execution_time=execution_time,
        meta=meta,
    )
    return Draft(Channel.TASK, f"task.{status}", payload, at, task_id)


def step(
    kickoff_id: str,
    task_id: str | None,
    kind: str,
    at: int,
    *,
    agent: str | None = None,
    content: str | None = None,
    tool: str | None = None,
    input: JSON | None = None,  # noqa: A002 - the document's own name
    output: str | None = None,
) -> Draft:
    """`StepEventPayload`; `kind` is thought, action, observation, tool_call or tool_result."""
    body = _present(type=kind, content=content, tool=tool, input=input, output=output)
    payload = _present(kickoff_id=kickoff_id, task_id=task_id, agent=agent, step=body, timestamp=rfc3339(at))
    return Draft(Channel.STEP, "step", payload, at, task_id)


def crew_completed(
    kickoff_id: str,
    status: str,
    at: int,
    *,
    output: str | None = None,
    tasks: list[JSON] | None = None,
    error: str | None = None,
    execution_time: float | None = None,
    meta: JSON | None = None,
) -> Draft:
    """`CrewCompletedPayload`; `status` is completed or error. A failed run tells its finished tasks too."""
    result = _present(output=output, tasks=tasks or None)
    payload = _present(
        kickoff_id=kickoff_id,
        status=status,
        result=result or None,
        error=error,
        execution_time=execution_time,
        meta=meta,
    )
    return Draft(Channel.CREW, f"crew.{status}", payload, at)


def human_input(
    kickoff_id: str,
    task_id: str,
    kind: str,
    at: int,
    *,
    output: str,
    agent: str | None = None,
    review_url: str | None = None,
    expires_at: int | None = None,
    meta: JSON | None = None,
) -> Draft:
    """What a run that waits for a person tells whoever is to decide; `kind` is requested or reminder.

    The fields of AMP's notification, and ours: `review_url` lets its holder decide, once.
    """
    payload = _present(
        kickoff_id=kickoff_id,
        execution_id=kickoff_id,
        task_id=task_id,
        agent=agent,
        task_output=output,
        review_url=review_url,
        expires_at=None if expires_at is None else rfc3339(expires_at),
        meta=meta,
    )
    return Draft(Channel.HUMAN_INPUT, f"human_input.{kind}", payload, at, task_id)


def without_link(body: bytes) -> bytes:
    """A human-input payload as it is shown: who may see a run may not therefore decide."""
    payload = msgspec.json.decode(body)
    payload.pop("review_url", None)
    return msgspec.json.encode(payload)


def encode(draft: Draft, run_id: str, seq: int, run_attempt: int, max_bytes: int) -> Event:
    """The numbered event with its final bytes: these are stored, signed and sent.

    Where the JSON is longer than `max_bytes`, its long texts are cut, each with a marker that says
    where the whole is, and `whole` keeps the uncut bytes.
    """
    body = msgspec.json.encode(draft.payload)
    whole = None
    if len(body) > max_bytes:
        whole, body = body, _cut(body, max_bytes, f"GET /api/v1/runs/{run_id}/events/{seq}")
    return Event(
        run_id=run_id,
        seq=seq,
        channel=draft.channel,
        type=draft.type,
        body=body,
        at=draft.at,
        run_attempt=run_attempt,
        task_id=draft.task_id,
        whole=whole,
    )


def headers(
    event: Event,
    lane: Lane,
    *,
    timestamp: int,
    signatures: str,
    lane_seq: int | None = None,
    pending: int | None = None,
    replay: bool = False,
) -> list[tuple[bytes, bytes]]:
    """The headers of a delivery: Standard Webhooks' three, then ours, which are unsigned hints.

    `lane_seq` is the event's number for the URL where it is not the lane's next.
    """
    attempt = lane.tries + 1
    trace = event.run_id.replace("-", "")
    listed = [
        (b"content-type", b"application/json"),
        (b"webhook-id", event.id.encode()),
        (b"webhook-timestamp", b"%d" % timestamp),
        (b"webhook-signature", signatures.encode()),
        (b"crewcast-event", event.type.encode()),
        (b"crewcast-kickoff-id", event.run_id.encode()),
        (b"crewcast-run-seq", b"%d" % event.seq),
        (b"crewcast-lane-seq", b"%d" % (lane_seq or lane.head_lane_seq)),
        (b"crewcast-run-attempt", b"%d" % event.run_attempt),
        (b"crewcast-delivery-attempt", b"%d" % attempt),
        # W3C Trace Context: the run is the trace, the attempt is the parent span.
        (b"traceparent", b"00-%b-%08x%08x-01" % (trace.encode(), event.seq, attempt)),
    ]
    if pending is not None:
        listed.append((b"crewcast-pending", b"%d" % pending))
    if replay:
        listed.append((b"crewcast-replay", b"true"))
    return listed


def auth_headers(auth: Authentication) -> list[tuple[bytes, bytes]]:
    """What goes beside the headers of a delivery to a URL that the kickoff gave an authentication for."""
    return [(name.encode("ascii"), value.encode("ascii")) for name, value in auth.headers]


def rfc3339(at: int) -> str:
    """Microseconds since 1970 as `2026-01-31T12:00:00.000001Z` (the document's `date-time`)."""
    return moment.show(at)


def _present(**fields: Any) -> JSON:
    return {name: value for name, value in fields.items() if value is not None}


def _cut(body: bytes, max_bytes: int, where: str) -> bytes:
    """The JSON object with its cuttable texts shortened so that it fits, the longest first.

    A body whose other parts alone are over the limit stays larger: it is never made invalid.
    """
    payload = msgspec.json.decode(body)
    texts = [(holder, key, len(msgspec.json.encode(holder[key])) - 2) for holder, key in _texts(payload)]
    marker_room = len(f" ...[cut by Crewcast: {len(body)} characters in all; whole: {where}]")
    fixed = len(body) - sum(size for _, _, size in texts)
    limit = _share(sorted(size for _, _, size in texts), max_bytes - fixed)
    for holder, key, size in texts:
        if size > limit:
            text: str = holder[key]
            marker = f" ...[cut by Crewcast: {len(text)} characters in all; whole: {where}]"
            holder[key] = _shorten(text, max(0, limit - marker_room)) + marker
    return msgspec.json.encode(payload)


def _share(sizes: list[int], room: int) -> int:
    """The largest limit for which the `sizes` (ascending), each cut to it, fit into `room`."""
    for n, size in enumerate(sizes):
        limit = room // (len(sizes) - n)
        if size > limit:
            return max(0, limit)
        room -= size
    return sizes[-1] if sizes else 0


def _shorten(text: str, max_bytes: int) -> str:
    while (size := len(msgspec.json.encode(text)) - 2) > max_bytes:
        text = text[: min(len(text) - 1, len(text) * max_bytes // size)]
    return text


def _texts(value: Any, cuttable: bool = False) -> Iterator[tuple[Any, Any]]:  # noqa: FBT001, FBT002 - recursion state
    """Every (holder, key) whose value is a text that may be cut: those below a cuttable key."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        inside = cuttable or (key in _CUTTABLE)
        if isinstance(item, str):
            if inside:
                yield value, key
        elif key != "meta":
            yield from _texts(item, inside)
