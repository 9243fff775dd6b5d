"""Whether a delivery is what the server signed, and what it says."""

import json
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from crewcast.core.errors import SignatureError, UsageError
from crewcast.core.signature import PRIVATE, PUBLIC, key_of, public_key_of, verify_public
from crewcast.core.signature import verify as signature_matches
from crewcast.webhooks.events import Event, event_of
from crewcast.webhooks.headers import Headers, ours

TOLERANCE = 300  # seconds, as Standard Webhooks' own libraries have it
_SECONDS = re.compile(r"[0-9]{1,12}")


@dataclass(frozen=True, slots=True)
class Delivery:
    """A verified delivery.

    `id` is the same for every delivery of an event. `event` has the fields of the AsyncAPI document, by its
    kind; `payload` is the body as it came. `type`, the three numbers with `seq` and `attempt` in their names,
    `replay` and `pending` come from unsigned headers: hints, not proof. `lane_seq` is dense per URL and run,
    so a gap is an event that was given up.
    """

    id: str
    timestamp: int
    kickoff_id: str
    payload: dict[str, Any] = field(repr=False)
    type: str
    run_seq: int
    lane_seq: int
    run_attempt: int
    delivery_attempt: int
    replay: bool
    pending: int | None
    event: Event = field(repr=False)


def verify(
    keys: str | Iterable[str],
    headers: Headers,
    body: bytes | str,
    *,
    tolerance: float = TOLERANCE,
    now: float | None = None,
) -> Delivery:
    """The delivery, if one of `keys` signed exactly this `body` within `tolerance` seconds of now.

    A key is a secret (`whsec_...`) or a public key (`whpk_...`, which needs `crewcast[ed25519]`); while one is
    rotated, give both. `headers` may be any mapping, or pairs, in any case, of text or bytes, or a WSGI
    environment. `body` is what came, before any parser.

    Raises SignatureError with the reason: answer 401. Raises UsageError for a key that is none: that is no
    fault of the delivery, so let it be a 500, and it comes again.
    """
    found = ours(headers)
    raw = body.encode() if isinstance(body, str) else bytes(body)
    known = [keys] if isinstance(keys, str) else list(keys)
    if not known:
        raise UsageError("there is no key to verify with")
    message_id, signatures = _header(found, "webhook-id"), _header(found, "webhook-signature")
    stamp = _header(found, "webhook-timestamp")
    if not _SECONDS.fullmatch(stamp):
        raise SignatureError("webhook-timestamp is not a number")
    timestamp = int(stamp)
    if not message_id.isascii():
        raise SignatureError("webhook-id is not ASCII")
    fits = False
    for key in known:  # each one, so that the time taken says nothing about which one fits
        fits |= _fits(key, message_id, timestamp, raw, signatures)
    if abs((time.time() if now is None else now) - timestamp) > tolerance:
        raise SignatureError(f"webhook-timestamp is more than {tolerance:g} s away from this machine's clock")
    if not fits:
        raise SignatureError("no signature fits: another secret, or the body was changed on its way")
    payload = _payload(raw)
    pending = found.get("crewcast-pending")
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
        pending=None if pending is None else _number(pending),
        event=event_of(payload),
    )


def _fits(key: str, message_id: str, timestamp: int, body: bytes, signatures: str) -> bool:
    signed = message_id, timestamp, body, signatures
    if key.startswith(PRIVATE):
        raise UsageError("a whsk_ key signs; verify with its public key, whpk_...")
    try:
        if key.startswith(PUBLIC):
            return verify_public(public_key_of(key), *signed)
        return signature_matches(key_of(key), *signed)
    except SignatureError as e:
        raise UsageError(str(e)) from e
    except ModuleNotFoundError as e:
        raise UsageError(
            "a public key (whpk_...) needs a package more: pip install 'crewcast[ed25519]'"
        ) from e


def _header(found: dict[str, str], name: str) -> str:
    try:
        return found[name]
    except KeyError as e:
        raise SignatureError(f"the header {name} is missing") from e


def _payload(body: bytes) -> dict[str, Any]:
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError) as e:
        raise SignatureError("the body is signed but not JSON") from e
    if not isinstance(payload, dict) or not isinstance(payload.get("kickoff_id"), str):
        raise SignatureError("the body is signed but has no kickoff_id")
    return payload


def _number(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 16 else 0
