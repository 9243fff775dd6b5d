"""What a subscriber installs: verify a delivery, and know what it is. Standard library only.

from crewcast.webhooks import verify

delivery = verify(secret, request.headers, request.body)   # raises SignatureError: answer 401
if not seen(delivery.id):                                   # at least once: drop repetitions
    ...
"""

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from crewcast.core.errors import SignatureError
from crewcast.core.signature import key_of
from crewcast.core.signature import verify as signature_matches

__all__ = ["Delivery", "SignatureError", "verify"]

TOLERANCE = 300  # seconds, as Standard Webhooks' own libraries have it


@dataclass(frozen=True, slots=True)
class Delivery:
    """A verified delivery.

    `id` is the same for every delivery of an event. `payload` is the AsyncAPI document's body.
    `type`, `run_seq`, `lane_seq` and `replay` come from unsigned headers: hints, not proof. `lane_seq`
    is dense per URL and run, so a gap is an event that was given up.
    """

    id: str
    timestamp: int
    kickoff_id: str
    payload: dict[str, Any]
    type: str
    run_seq: int
    lane_seq: int
    run_attempt: int
    delivery_attempt: int
    replay: bool


def verify(
    secrets: str | Iterable[str],
    headers: Mapping[str, str],
    body: bytes | str,
    *,
    tolerance: int = TOLERANCE,
    now: float | None = None,
) -> Delivery:
    """The delivery, if one of `secrets` (`whsec_...`) signed exactly this `body` within `tolerance` seconds.

    `headers` may have any case. Raises SignatureError with the reason; answer 401 then.
    """
    found = {name.lower(): value for name, value in headers.items()}
    raw = body.encode() if isinstance(body, str) else bytes(body)
    try:
        message_id, signatures = found["webhook-id"], found["webhook-signature"]
        timestamp = int(found["webhook-timestamp"])
    except KeyError as e:
        raise SignatureError(f"the header {e.args[0]} is missing") from e
    except ValueError as e:
        raise SignatureError("webhook-timestamp is not a number") from e
    if abs((time.time() if now is None else now) - timestamp) > tolerance:
        raise SignatureError(f"webhook-timestamp is more than {tolerance} s away from this machine's clock")
    known = [secrets] if isinstance(secrets, str) else list(secrets)
    fits = False
    for secret in known:  # each one, so that the time taken says nothing about which one fits
        fits |= signature_matches(key_of(secret), message_id, timestamp, raw, signatures)
    if not fits:
        raise SignatureError("no signature fits: another secret, or the body was changed on its way")
    payload = _payload(raw)
    return Delivery(
        id=message_id,
        timestamp=timestamp,
        kickoff_id=payload["kickoff_id"],
        payload=payload,
        type=found.get("crewcast-event", ""),
        run_seq=_number(found.get("crewcast-run-seq")),
        lane_seq=_number(found.get("crewcast-lane-seq")),
        run_attempt=_number(found.get("crewcast-run-attempt")),
        delivery_attempt=_number(found.get("crewcast-delivery-attempt")),
        replay=found.get("crewcast-replay") == "true",
    )


def _payload(body: bytes) -> dict[str, Any]:
    try:
        payload = json.loads(body)
    except ValueError as e:
        raise SignatureError("the body is signed but not JSON") from e
    if not isinstance(payload, dict) or not isinstance(payload.get("kickoff_id"), str):
        raise SignatureError("the body is signed but has no kickoff_id")
    return payload


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0
