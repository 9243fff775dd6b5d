"""The HTTP application: its routes, and what every request passes through."""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from crewcast.api import auth
from crewcast.clock import Clock
from crewcast.contract.amp import unknown_run
from crewcast.contract.kickoff import CrewInputs, Seal, UrlCheck
from crewcast.contract.problem import Problem
from crewcast.core.errors import StoreError
from crewcast.core.keyring import KeyRing
from crewcast.core.lane import Lane
from crewcast.core.review_link import PATH as REVIEW_PATH
from crewcast.core.review_link import ReviewLinks
from crewcast.core.run import Run
from crewcast.store.protocol import Store, level

log = logging.getLogger("crewcast.api")

Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class CrewView:
    """What the API needs of a served crew. `inputs` waits while CrewAI loads; `known` does not.

    `inputs` raises Problem 500 with the project's own error if it cannot be loaded. `refresh` takes in an edit of the
    project, where edits are followed. `error` is why it cannot be loaded, `warnings` what is odd about it.
    """

    name: str
    kind: Callable[[], str]
    inputs: Callable[[], Awaitable[CrewInputs]]
    known: Callable[[], CrewInputs | None]
    refresh: Callable[[], Awaitable[object]]
    tasks: Callable[[], list[str] | None]
    state: Callable[[], str]
    error: Callable[[], str | None]
    warnings: Callable[[], list[str]]

    def total_tasks(self) -> int | None:
        tasks = self.tasks()
        return None if tasks is None else len(tasks)


@dataclass(slots=True)
class Context:
    """What the routes work with; made by `parts.py`. `crews` may change from request to request."""

    store: Store
    clock: Clock
    tokens: auth.Tokens
    crews: Mapping[str, CrewView]
    check_url: UrlCheck
    random: Callable[[int], bytes]
    log_file: Callable[[str], Path]
    keys: KeyRing
    seal: Seal
    links: ReviewLinks
    reseal: Callable[[Lane, str], bytes | None]  # a lane's authentication, for the same URL in another run
    has_worker: Callable[[str], bool] = lambda _crew: True  # whether somebody takes runs of that crew now
    # Where logs may lie on other machines: the name of the node that holds a run by its lease token, if one does.
    log_elsewhere: Callable[[str | None], str | None] | None = None
    shared: bool = False  # whether other nodes may work on the same store
    default_crew: str | None = None
    paused_status: str = "awaiting_human_feedback"
    max_event_bytes: int = 256 * 1024
    max_body_bytes: int = 4 * 1024 * 1024
    host_names: frozenset[str] | None = None
    draining: bool = False

    def token(self, request: Request) -> str:
        return self.tokens.check(request.headers.get("authorization"))

    def crew(self, name: str | None) -> CrewView:
        """The crew of that name; without a name the default one, or the only one.

        Raises Problem 404 that lists the names.
        """
        wanted = name if name is not None else self.default_crew
        if wanted is None and len(self.crews) == 1:
            return next(iter(self.crews.values()))
        if wanted is not None and wanted in self.crews:
            return self.crews[wanted]
        names = sorted(self.crews)
        if wanted is None:
            said = (
                f"This server has several crews: {', '.join(names)}. Ask /crews/NAME/..., or set default_crew"
            )
        else:
            said = f"There is no crew {wanted[:64]!r} here; there are: {', '.join(names)}"
        raise Problem(404, "Crew not found", said, {"crews": names})


def create_app(context: Context) -> ASGIApp:
    from crewcast.api import amp, deliveries, documents, nodes, reruns, review_page, reviews, runs, secrets

    routes = [
        Route("/", amp.healthy, methods=["GET"]),
        Route("/healthz", amp.healthz, methods=["GET"]),
        Route("/inputs", amp.inputs, methods=["GET"]),
        Route("/kickoff", amp.kickoff, methods=["POST"]),
        Route("/status/{kickoff_id}", amp.status, methods=["GET"]),
        Route("/resume", reviews.resume, methods=["POST"]),
        Route("/stop/{kickoff_id}", reviews.stop, methods=["POST"]),
        Route("/crews", amp.crews, methods=["GET"]),
        Route("/crews/{name}/inputs", amp.inputs, methods=["GET"]),
        Route("/crews/{name}/kickoff", amp.kickoff, methods=["POST"]),
        Route("/crews/{name}/status/{kickoff_id}", amp.status, methods=["GET"]),
        Route("/crews/{name}/resume", reviews.resume, methods=["POST"]),
        Route("/crews/{name}/stop/{kickoff_id}", reviews.stop, methods=["POST"]),
        Route(REVIEW_PATH + "{token}", review_page.page, methods=["GET", "POST"]),
        Route("/openapi.json", documents.openapi, methods=["GET"]),
        Route("/asyncapi.yaml", documents.asyncapi, methods=["GET"]),
        Route("/docs", documents.docs, methods=["GET"]),
        Route("/api/v1/runs/{kickoff_id}/events", runs.events, methods=["GET"]),
        Route("/api/v1/runs/{kickoff_id}/events/{seq}", runs.event, methods=["GET"]),
        Route("/api/v1/runs/{kickoff_id}/deliveries", runs.deliveries, methods=["GET"]),
        Route("/api/v1/runs/{kickoff_id}/logs", runs.logs, methods=["GET"]),
        Route("/api/v1/runs/{kickoff_id}/rerun", reruns.rerun, methods=["POST"]),
        Route("/api/v1/runs/{kickoff_id}", deliveries.delete, methods=["DELETE"]),
        Route("/api/v1/reviews", reviews.listed, methods=["GET"]),
        Route("/api/v1/undelivered", deliveries.undelivered, methods=["GET"]),
        Route("/api/v1/redeliveries", deliveries.redeliver, methods=["POST"]),
        Route("/api/v1/origins", deliveries.origins, methods=["GET"]),
        Route("/api/v1/origins/reset", deliveries.reset, methods=["POST"]),
        Route("/api/v1/nodes", nodes.listed, methods=["GET"]),
        Route("/api/v1/secrets/rotate", secrets.rotate, methods=["POST"]),
        Route("/.well-known/webhook-keys", secrets.public_keys, methods=["GET"]),
    ]
    app = Starlette(
        routes=routes,
        exception_handlers={
            Problem: _problem,
            HTTPException: _http_exception,
            StoreError: _store_error,
            Exception: _defect,
        },
    )
    app.state.context = context
    return Entrance(app, context.host_names)


class Entrance:
    """Before routing: the Host check, and `//kickoff` (a base URL with a slash) taken for `/kickoff`."""

    def __init__(self, app: ASGIApp, host_names: frozenset[str] | None) -> None:
        self._app = app
        self._host_names = host_names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if self._host_names is not None:
                host = next(
                    (value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), ""
                )
                if not auth.host_allowed(host, self._host_names):
                    problem = Problem(
                        403, "Forbidden", f"This server does not answer to the name {host!r}; use its address"
                    )
                    await _answer(problem)(scope, receive, send)
                    return
            if "//" in scope["path"]:
                path = re.sub("/+", "/", scope["path"])
                scope = dict(scope) | {"path": path, "raw_path": path.encode()}
        await self._app(scope, receive, send)


def context_of(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


async def run_of(context: Context, request: Request, run_id: str) -> Run:
    """The run, if it is of the crew that the path names, if it names one.

    Raises Problem 404.
    """
    name: str | None = request.path_params.get("name")
    crew = None if name is None else context.crew(name)
    run = await context.store.run(run_id)
    if run is None or (crew is not None and run.crew != crew.name):
        raise unknown_run(run_id)
    return run


async def read_body(request: Request, limit: int) -> bytes:
    """The body of at most `limit` bytes.

    Raises Problem 413 for a larger one, without reading it to its end.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise Problem(
                413,
                "Payload Too Large",
                f"The body is over {limit} bytes",
                {"max_body_bytes": limit},
                {"connection": "close"},
            )
    return bytes(body)


def answer(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), status, dict(headers or {}), "application/json")


def _answer(problem: Problem) -> Response:
    return answer(problem.body, problem.status, problem.headers)


async def _problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return _answer(error)


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    told = {
        404: f"There is nothing at {request.url.path[:200]}",
        405: f"{request.method} is not served at {request.url.path[:200]}",
    }.get(error.status_code, error.detail)
    return _answer(Problem(error.status_code, error.detail, told, headers=error.headers))


async def _store_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, StoreError)
    log.log(level(error), "not stored: %s", error)
    return _answer(
        Problem(503, "Service Unavailable", f"Nothing was stored: {error}", headers={"retry-after": "5"})
    )


async def _defect(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    await asyncio.sleep(0)
    return _answer(Problem(500, "Internal Server Error", "A defect of Crewcast; its log has the details"))
