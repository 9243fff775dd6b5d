"""The sender: POSTs to subscribers whom nobody vouches for, and always has an outcome to tell."""

import asyncio
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import crewcast
from crewcast.clock import RealClock
from crewcast.core.outcome import Outcome
from crewcast.core.url import Target
from crewcast.dispatch.connection import Connection
from crewcast.dispatch.dial import NOT_SENT, Dialer, NoConnection
from crewcast.dispatch.egress import EgressPolicy
from crewcast.dispatch.limits import SenderLimits
from crewcast.dispatch.pool import Pool
from crewcast.dispatch.proxy import Proxy
from crewcast.dispatch.resolver import Resolver, ThreadResolver
from crewcast.dispatch.transport import Headers

__all__ = ["Sender", "SenderLimits"]

MOST_ROUTES = 4096  # URLs whose head is kept ready
USER_AGENT = f"Crewcast/{crewcast.__version__}"


@dataclass(frozen=True, slots=True)
class _Route:
    """What all requests to a URL share."""

    head: bytes
    idle: list[Connection] = field(repr=False)


class Sender:
    """A Transport over HTTP/1.1, with keep-alive and without redirects, cookies and compression.

    No proxy but the one that it is given: the environment is not asked.

    `monotonic` measures durations and deadlines (the loop's own time is in whole milliseconds on
    uvloop), `now` is the wall clock in microseconds for Retry-After dates.
    """

    def __init__(
        self,
        policy: EgressPolicy,
        *,
        limits: SenderLimits = SenderLimits(),  # noqa: B008 - a frozen value
        resolver: Resolver | None = None,
        ssl_context: ssl.SSLContext | None = None,
        proxy: Proxy | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], int] = RealClock().now,  # noqa: B008 - stateless
    ) -> None:
        self._total = limits.total
        self._monotonic = monotonic
        self._pool = Pool(limits, monotonic, now)
        self._dialer = Dialer(
            policy, limits, resolver or ThreadResolver(), ssl_context or _tls_context(), monotonic, proxy
        )
        self._routes: dict[Target, _Route] = {}
        self._shelves: dict[tuple[str, str, int], list[Connection]] = {}
        self._in_flight = 0
        self._stopping = False  # nothing new
        self._ended = False  # nothing at all
        self._at_rest = asyncio.Event()

    async def post(self, target: Target, headers: Headers, body: bytes) -> Outcome:
        """One attempt, at most `limits.total` seconds. Raises nothing but a cancellation.

        An attempt may reach the subscriber twice: on a kept connection that turns out to be closed
        before a byte of an answer, the request is repeated once on a fresh one. Delivery is
        at-least-once and the `webhook-id` is the same.
        """
        started = self._monotonic()
        route = self._routes.get(target) or self._route(target)
        message = _message(route.head, headers, body)
        self._in_flight += 1
        try:
            if self._stopping:
                return Outcome("stopped", detail="the server is stopping")
            until = started + self._total
            connection = self._pool.take(route.idle)
            if connection is not None:
                waiter = connection.exchange(message, started, started, until)
                try:
                    outcome = await waiter
                except asyncio.CancelledError:
                    connection.leave(waiter)
                    raise
                if outcome is not None:
                    return outcome
            return await self._afresh(target, route, message, started, until)
        finally:
            self._in_flight -= 1
            if self._stopping and not self._in_flight:
                self._at_rest.set()

    async def close(self, grace: float = 0.0) -> None:
        """Ends every connection. What is in flight may end within `grace` seconds, else it is `stopped`."""
        self._stopping = True
        if self._in_flight and grace > 0:
            with_grace = asyncio.ensure_future(self._at_rest.wait())
            await asyncio.wait([with_grace], timeout=grace)
            with_grace.cancel()
        self._ended = True
        self._dialer.stop()
        self._pool.stop()
        if self._in_flight:
            await self._at_rest.wait()
        await self._pool.close()

    async def _afresh(
        self, target: Target, route: _Route, message: bytes, started: float, until: float
    ) -> Outcome:
        dialled = await self._dialer.dial(target, until, lambda: Connection(self._pool, route.idle))
        now = self._monotonic()
        if isinstance(dialled, NoConnection):
            return Outcome(dialled.kind, None, None, int((now - started) * 1_000_000), dialled.detail)
        if self._ended:
            dialled.abort()
            return Outcome("stopped", detail="the server is stopping")
        if not dialled.is_open():
            return Outcome("closed", None, None, int((now - started) * 1_000_000), NOT_SENT)
        waiter = dialled.exchange(message, started, now, until)
        try:
            outcome = await waiter
        except asyncio.CancelledError:
            dialled.leave(waiter)
            raise
        assert outcome is not None, "only a connection that was used before may have no outcome"
        return outcome

    def _route(self, target: Target) -> _Route:
        if len(self._routes) >= MOST_ROUTES:
            # Connections on a forgotten shelf end by their idle time.
            self._routes.clear()
            self._shelves.clear()
        key = (target.scheme, target.host, target.port)
        head = (
            f"POST {target.path} HTTP/1.1\r\nHost: {target.authority}\r\nUser-Agent: {USER_AGENT}\r\n"
            "Accept: */*\r\nAccept-Encoding: identity\r\n"
        )
        route = _Route(head.encode("ascii"), self._shelves.setdefault(key, []))
        self._routes[target] = route
        return route


def _message(head: bytes, headers: Headers, body: bytes) -> bytes:
    lines = b"\r\n".join(map(b": ".join, headers))
    breaks = max(0, len(headers) - 1)
    if lines.count(b"\n") != breaks or lines.count(b"\r") != breaks:
        raise ValueError("a header has a line break in it")
    return b"%bContent-Length: %d\r\n%b%b%b" % (
        head,
        len(body),
        lines,
        b"\r\n\r\n" if lines else b"\r\n",
        body,
    )


def _tls_context() -> ssl.SSLContext:
    """The system's authorities, host names checked, TLS 1.2 and later."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context
