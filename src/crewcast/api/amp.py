"""The AMP API: thin routes that parse, ask one verb of the store, and answer."""

import hashlib

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from crewcast.api.app import Context, CrewView, answer, context_of, read_body, run_of
from crewcast.contract import amp as bodies
from crewcast.contract.kickoff import new_lanes, parse_kickoff
from crewcast.contract.problem import Problem
from crewcast.contract.terms import Terms
from crewcast.contract.webhooks import JSON
from crewcast.core import ids
from crewcast.core.event import Channel
from crewcast.core.run import Run, RunState, new_run
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


async def crews(request: Request) -> Response:
    """What is served here, and how it is doing."""
    context = context_of(request)
    context.token(request)
    default = context.default_crew or (next(iter(context.crews)) if len(context.crews) == 1 else None)
    return answer({"crews": [_told(crew) for crew in context.crews.values()], "default": default})


def _told(crew: CrewView) -> JSON:
    told: JSON = {"name": crew.name, "kind": crew.kind(), "state": crew.state()}
    known, tasks, error, warnings = crew.known(), crew.tasks(), crew.error(), crew.warnings()
    if known is not None:
        told |= {"inputs": list(known.names), "required": list(known.required)}
    if tasks is not None:
        told["tasks"] = tasks
    if error is not None:
        told["error"] = error
    if warnings:
        told["warnings"] = warnings
    return told


async def inputs(request: Request) -> Response:
    context = context_of(request)
    context.token(request)
    found = await context.crew(_named(request)).inputs()
    return answer({"inputs": list(found.names)})


async def kickoff(request: Request) -> Response:
    """Starts a run: stored and durable before the answer; the same Idempotency-Key gives the same run."""
    context = context_of(request)
    token = context.token(request)
    crew = context.crew(_named(request))
    body = await read_body(request, context.max_body_bytes)
    now = context.clock.now()
    # The same body for another crew is another request.
    key = wanted_key(request, token, crew.name, body)
    # What was accepted once is answered again, whatever is known or refused by now.
    if key is not None and (earlier := await context.store.earlier(key, now)):
        return started(earlier, [])
    refuse_while_draining(context)
    await crew.refresh()
    asked = parse_kickoff(body, crew.known(), context.check_url)
    run = new_run(
        ids.run_id(now, context.random(10)),
        crew.name,
        msgspec.json.encode(asked.inputs),
        now,
        meta=None if asked.meta is None else msgspec.json.encode(asked.meta),
        options=None if asked.terms == Terms() else msgspec.json.encode(asked.terms),
        token=token,
        priority=asked.priority,
        max_attempts=asked.max_attempts,
        timeout=asked.timeout,
    )
    created = await context.store.create_run(run, new_lanes(run.id, asked, context.seal), key, now)
    return started(created, asked.warnings)


def refuse_while_draining(context: Context) -> None:
    if context.draining:
        raise Problem(
            503,
            "Service Unavailable",
            "The server is stopping and takes no kickoffs; try again soon",
            headers={"retry-after": "5"},
        )


def started(created: Created, warnings: list[str], more: JSON | None = None) -> Response:
    """The answer to what began a run, or had begun it before."""
    if created.conflict:
        raise Problem(
            422,
            "Validation Error",
            "This Idempotency-Key was used for another body within the last 24 hours; use a new key",
            {"field": "Idempotency-Key"},
        )
    reply: JSON = {"kickoff_id": created.run_id, "execution_id": created.run_id, **(more or {})}
    if warnings:
        reply["warnings"] = warnings
    return answer(reply, headers={"idempotency-replayed": "true"} if created.replayed else None)


async def status(request: Request) -> Response:
    context = context_of(request)
    context.token(request)
    run = await run_of(context, request, request.path_params["kickoff_id"])
    last = await context.store.last_event(run.id, Channel.CREW) if run.state.ended else None
    asking = run.state in (RunState.WAITING, RunState.RUNNING)
    review = await context.store.review(run.id) if asking else None
    crew = context.crews.get(run.crew)
    total = crew.total_tasks() if crew is not None else None
    told = bodies.status(run, context.clock.now(), last, total, review, context.paused_status)
    return answer(told | why_queued(context, run))


def why_queued(context: Context, run: Run) -> JSON:
    """What a queued run waits for, where that is not just its turn."""
    if run.state is RunState.QUEUED and not context.has_worker(run.crew):
        return bodies.no_worker(run.crew)
    return {}


def _named(request: Request) -> str | None:
    name: str | None = request.path_params.get("name")
    return name


def wanted_key(request: Request, token: str, about: str, body: bytes) -> IdempotencyKey | None:
    """The request's Idempotency-Key, for this body about this.

    Raises Problem 422 for one that is none.
    """
    name = request.headers.get("idempotency-key")
    if name is None:
        return None
    if not 0 < len(name) <= MAX_KEY_LENGTH:
        raise Problem(
            422,
            "Validation Error",
            f"Idempotency-Key must have 1 to {MAX_KEY_LENGTH} characters",
            {"field": "Idempotency-Key"},
        )
    return IdempotencyKey(token, name, hashlib.sha256(about.encode() + b"\0" + body).digest())
