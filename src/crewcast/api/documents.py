"""The documents that say what the server does: OpenAPI, AsyncAPI, and the first of them as a page. No token is needed."""

import asyncio

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from crewcast.api import docs_page
from crewcast.contract import asyncapi as webhook_document
from crewcast.contract import openapi as route_document


async def openapi(_request: Request) -> Response:
    return Response(await asyncio.to_thread(route_document.published), media_type="application/json")


async def asyncapi(_request: Request) -> Response:
    return Response(await asyncio.to_thread(webhook_document.published), media_type="application/yaml")


async def docs(_request: Request) -> Response:
    page = await asyncio.to_thread(docs_page.page)
    return HTMLResponse(page.html, headers=page.headers)
