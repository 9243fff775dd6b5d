"""The nodes that share the store, as they last said."""

from starlette.requests import Request
from starlette.responses import Response

from crewcast.api.app import answer, context_of
from crewcast.contract.webhooks import JSON, rfc3339
from crewcast.core.node import Node


async def listed(request: Request) -> Response:
    """Those that are there, and those that were within the last day and did not say that they leave."""
    context = context_of(request)
    context.token(request)
    now = context.clock.now()
    return answer({"nodes": [_told(node, now) for node in await context.store.nodes()]})


def _told(node: Node, now: int) -> JSON:
    state = "draining" if node.draining else "alive"
    return {
        "name": node.name,
        "state": state if node.alive(now) else "lapsed",
        "roles": list(node.roles),
        "crews": list(node.crews),
        "started_at": rfc3339(node.started_at),
        "seen_at": rfc3339(node.seen_at),
        "version": node.version,
        "url": node.url,
    }
