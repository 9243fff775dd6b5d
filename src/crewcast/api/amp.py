"""The AMP API: thin routes that parse, ask one verb of the store, and answer."""

import hashlib

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from crewcast.api.app import answer, context_of, read_body
from crewcast.contract import amp as bodies
from crewcast.contract import asyncapi as document
from crewcast.contract.amp import Problem
from crewcast.core import ids
from crewcast.core.event import Channel
from crewcast.core.run import new_run
from crewcast.store.protocol import Created, IdempotencyKey

MAX_KEY_LENGTH = 255


async def healthy(_request: Request) -> Response:
    return PlainTextResponse("Healthy")


async def healthz(request: Request) -> Response:
    """For load balancers and people, without a token: is the server up, and is its crew loaded."""
    context = context_of(request)
    crews = {name: crew.state() for name, crew in context.crews.items()}
    if context.draining:
        return answer({"status": "draining", "crews": crews}, 503)
    return answer({"status": "ok", "crews": crews})


async def asyncapi(_request: Request) -> Response:
    return Response(document.published(), media_type="application/yaml")


async def inputs(request: Request) -> Response:
    context = context_of(request)
    context.token(request)
    found = await context.the_crew().inputs()
    return answer({"inputs": list(found.names)})


async def kickoff(request: Request) -> Response:
    """Starts a run: stored and durable before the answer; the same Idempotency-Key gives the same run."""
    context = context_of(request)
    token = context.token(request)
    name = _idempotency_key(request)
    body = await read_body(request, context.max_body_bytes)
    now = context.clock.now()
    key = None if name is None else IdempotencyKey(token, name, hashlib.sha256(body).digest())
    # What was accepted once is answered again, whatever is known or refused by now.
    if key is not None and (earlier := await context.store.earlier(key, now)):
        return _started(earlier, [])
    if context.draining:
        raise Problem(
            503,
            "Service Unavailable",
            "The server is stopping and takes no kickoffs; try again soon",
            headers={"retry-after": "5"},
        )
    crew = context.the_crew()
    asked = bodies.parse_kickoff(body, crew.known(), context.check_url)
    run = new_run(
        ids.run_id(now, context.random(10)),
        crew.name,
        msgspec.json.encode(asked.inputs),
        now,
        meta=None if asked.meta is None else msgspec.json.encode(asked.meta),
        options=msgspec.json.encode(asked.options) if asked.options else None,
        token=token,
    )
    created = await context.store.create_run(run, bodies.new_lanes(run.id, asked), key, now)
    return _started(created, asked.warnings)


def _started(created: Created, warnings: list[str]) -> Response:
    if created.conflict:
        raise Problem(
            422,
            "Validation Error",
            "This Idempotency-Key was used for another body within the last 24 hours; use a new key",
            {"field": "Idempotency-Key"},
        )
    reply: dict[str, object] = {"kickoff_id": created.run_id, "execution_id": created.run_id}
    if warnings:
        reply["warnings"] = warnings
    return answer(reply, headers={"idempotency-replayed": "true"} if created.replayed else None)


async def status(request: Request) -> Response:
    context = context_of(request)
    context.token(request)
    run_id = request.path_params["kickoff_id"]
    run = await context.store.run(run_id)
    if run is None:
        raise bodies.unknown_run(run_id)
    last = await context.store.last_event(run.id, Channel.CREW) if run.state.ended else None
    crew = context.crews.get(run.crew)
    total = crew.total_tasks() if crew is not None else None
    return answer(bodies.status(run, context.clock.now(), last, total))


def _idempotency_key(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not 0 < len(key) <= MAX_KEY_LENGTH:
        raise Problem(
            422,
            "Validation Error",
            f"Idempotency-Key must have 1 to {MAX_KEY_LENGTH} characters",
            {"field": "Idempotency-Key"},
        )
    return key
