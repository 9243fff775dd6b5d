"""Signing secrets over HTTP: the public keys, and rotation. No secret ever leaves here."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from crewcast.api.app import answer, context_of, read_body
from crewcast.contract import redelivery
from crewcast.contract.problem import Problem, json_object
from crewcast.contract.webhooks import JSON, rfc3339
from crewcast.core.backoff import DAY, HOUR, SECOND
from crewcast.core.generation import EVERY_ORIGIN, MOST_AT_ONCE, signing
from crewcast.core.keyring import KeyRing

ALL = "all"
OVERLAP = 24 * HOUR
LONGEST_OVERLAP = 30 * DAY


async def public_keys(request: Request) -> Response:
    """For subscribers, without a token: what verifies the `v1a` signatures of deliveries to an origin."""
    context = context_of(request)
    keys = context.keys
    origin = redelivery.origin("origin", request.query_params.get("origin"))
    found = keys.public_keys(origin, context.clock.now())
    return answer(
        {
            "origin": origin,
            "signatures": ["v1", "v1a"] if keys.asymmetric else ["v1"],
            "keys": [
                {
                    "id": one.id,
                    "algorithm": "ed25519",
                    "key": one.key,
                    "from": _moment(one.generation.since),
                    "until": _moment(one.generation.until),
                }
                for one in found
            ],
        }
    )


async def rotate(request: Request) -> Response:
    """Begins new secrets for one origin or for all; the older ones sign beside them during the overlap."""
    context = context_of(request)
    context.token(request)
    keys = context.keys
    body = json_object(await read_body(request, context.max_body_bytes))
    named = body.get("origin")
    origin = EVERY_ORIGIN if named == ALL else redelivery.origin("origin", named)
    overlap = _overlap(body.get("overlap"))
    now = context.clock.now()
    rotation = await context.store.rotate(origin, now, now + overlap)
    if rotation is None:
        raise Problem(
            409,
            "Conflict",
            f"{MOST_AT_ONCE} secrets are in force already, and each one signs; wait until one ends, or end all "
            'older ones now with an "overlap" of 0',
            {"field": "overlap"},
        )
    keys.turn(await context.store.rotations())
    return answer(_in_force(keys, origin, now))


def _in_force(keys: KeyRing, origin: str, now: int) -> JSON:
    """What is in force for an origin, the newest first."""
    return {
        "origin": origin or ALL,
        "generations": [
            {"generation": one.number, "from": _moment(one.since), "until": _moment(one.until)}
            for one in signing(keys.generations(origin), now)
        ],
    }


def _overlap(value: Any) -> int:
    if value is None:
        return OVERLAP
    whole = isinstance(value, int | float) and not isinstance(value, bool) and value == int(value)
    if not whole or not 0 <= value * SECOND <= LONGEST_OVERLAP:
        raise redelivery.invalid(
            "overlap", f"must be a whole number of seconds from 0 to {LONGEST_OVERLAP // SECOND}"
        )
    return int(value) * SECOND


def _moment(at: int | None) -> str | None:
    return None if at is None else rfc3339(at)
