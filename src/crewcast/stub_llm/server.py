"""The HTTP face of the offline LLM: it parses, answers and waits as long as it was told to."""

import asyncio
import math
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Final

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from crewcast.stub_llm import wire
from crewcast.stub_llm.answers import Answer, answer

_MODELS: Final = ("gpt-4o-mini", "gpt-4o", "o1", "text-embedding-3-small", "text-embedding-3-large")
_LONGEST_DELAY: Final = 600.0


def create_app(delay: float = 0.0) -> Starlette:
    """The application; `delay` is the time of one call in seconds, `x-stub-delay` sets it for one request."""
    routes = [
        Route("/v1/chat/completions", _chat, methods=["POST"]),
        Route("/v1/embeddings", _embeddings, methods=["POST"]),
        Route("/v1/models", _models, methods=["GET"]),
    ]
    handlers = {HTTPException: _http_error, msgspec.MsgspecError: _bad_request}
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.state.delay = delay
    return app


async def _chat(request: Request) -> Response:
    delay = _delay(request)
    chat = msgspec.json.decode(await request.body(), type=wire.ChatRequest)
    if not chat.messages:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "[] is too short - 'messages'")
    made = answer(
        chat.messages,
        chat.tools or (),
        tool_choice=chat.tool_choice or "auto",
        parallel_tool_calls=chat.parallel_tool_calls is not False,
        response_format=chat.response_format,
    )
    if chat.stream:
        return StreamingResponse(_events(chat, made, delay), media_type="text/event-stream")
    await asyncio.sleep(delay)
    return _json(wire.completion(chat, made))


async def _events(chat: wire.ChatRequest, made: Answer, delay: float) -> AsyncIterator[bytes]:
    pieces = list(wire.chunks(chat, made))
    for piece in pieces:
        if delay:  # spread over the answer, as a model's typing is
            await asyncio.sleep(delay / len(pieces))
        yield b"data: " + msgspec.json.encode(piece) + b"\n\n"
    yield b"data: [DONE]\n\n"


async def _embeddings(request: Request) -> Response:
    delay = _delay(request)
    wanted = msgspec.json.decode(await request.body(), type=wire.EmbeddingRequest)
    if wanted.dimensions is not None and wanted.dimensions < 1:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "'dimensions' must be at least 1")
    await asyncio.sleep(delay)
    return _json(wire.embeddings(wanted))


async def _models(_: Request) -> Response:
    models = [{"id": name, "object": "model", "created": 0, "owned_by": "stub"} for name in _MODELS]
    return _json({"object": "list", "data": models})


def _delay(request: Request) -> float:
    given = request.headers.get("x-stub-delay")
    if given is None:
        return float(request.app.state.delay)
    try:
        delay = float(given)
    except ValueError:
        delay = math.nan
    if not 0 <= delay <= _LONGEST_DELAY:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "x-stub-delay must be a number of seconds from 0 to 600")
    return delay


async def _http_error(request: Request, exc: Exception) -> Response:
    status = exc.status_code if isinstance(exc, HTTPException) else HTTPStatus.INTERNAL_SERVER_ERROR
    message = exc.detail if isinstance(exc, HTTPException) else "internal error"
    if status == HTTPStatus.NOT_FOUND:
        message = f"Invalid URL ({request.method} {request.url.path})"
    return _json(wire.error(message), status)


async def _bad_request(_: Request, exc: Exception) -> Response:
    return _json(wire.error(f"The body of the request is not valid: {exc}"), HTTPStatus.BAD_REQUEST)


def _json(body: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status, media_type="application/json")
