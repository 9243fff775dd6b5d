"""The way to a subscriber: resolve, check every address, connect to a checked one, TLS."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from ipaddress import IPv6Address

from crewcast.core.url import Target
from crewcast.dispatch.connection import Connection
from crewcast.dispatch.egress import Address, EgressPolicy, literal
from crewcast.dispatch.limits import SenderLimits
from crewcast.dispatch.resolver import Resolver

MOST_ADDRESSES = 8  # of one name that are tried; all are checked
SHUTDOWN = 1.0  # seconds that a TLS connection may take to say goodbye


class NoConnection(Exception):
    """Why there is no connection: raised on the way inside this file, returned at its edge."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(kind, detail)
        self.kind = kind
        self.detail = detail


class Dialer:
    def __init__(
        self,
        policy: EgressPolicy,
        limits: SenderLimits,
        resolver: Resolver,
        tls: ssl.SSLContext,
        monotonic: Callable[[], float],
    ) -> None:
        self._policy = policy
        self._limits = limits
        self._resolver = resolver
        self._tls = tls
        self._monotonic = monotonic
        self._scopes: set[asyncio.Timeout] = set()
        self._stopping = False

    async def dial(
        self, target: Target, until: float, make: Callable[[], Connection]
    ) -> Connection | NoConnection:
        """A fresh connection, or why there is none. `until` is a moment of the monotonic clock."""
        try:
            addresses = await self._addresses(target, until)
            sock = await self._connect(addresses, target.port, until)
            try:
                return await self._open(sock, target, until, make)
            except BaseException:
                sock.close()
                raise
        except NoConnection as e:
            return e

    def stop(self) -> None:
        """Ends whatever is being dialled, and whatever will be."""
        self._stopping = True
        now = asyncio.get_running_loop().time()
        for scope in self._scopes:
            scope.reschedule(now)
        self._resolver.close()

    async def _addresses(self, target: Target, until: float) -> list[Address]:
        """Addresses that may be connected to.

        A name with one address that is not allowed is refused as a whole. Taking only the good ones
        would let a subscriber mix an internal address in and learn from timing and errors which of
        them we fell back to; and a public service has no reason to list a private address.
        """
        if reason := self._policy.check_url(target):
            raise NoConnection("blocked", reason)
        address = literal(target.host)
        if address is not None:
            return [address]
        async with self._within("resolve", self._limits.resolve, until, "the name could not be resolved"):
            try:
                addresses = await self._resolver.resolve(target.host, target.port)
            except (OSError, UnicodeError) as e:
                reason = e.strerror if isinstance(e, OSError) and e.strerror else "the name is not valid"
                raise NoConnection("dns", reason) from e
        if not addresses:
            raise NoConnection("dns", "the name has no address")
        for address in addresses:
            if reason := self._policy.check_address(address, target.host):
                raise NoConnection("blocked", reason)
        return addresses[:MOST_ADDRESSES]

    async def _connect(self, addresses: list[Address], port: int, until: float) -> socket.socket:
        """The first address that answers, in the system's order; each gets its share of the time left."""
        until = min(until, self._monotonic() + self._limits.connect)
        failures = []
        for n, address in enumerate(addresses):
            share = (until - self._monotonic()) / (len(addresses) - n)
            try:
                async with self._within("connect", share, until, f"{address} did not answer"):
                    return await _tcp(address, port)
            except NoConnection as e:
                failures.append(e)
                if e.kind == "stopped":
                    break
        # A machine without IPv6 finds such addresses unreachable; what the others said tells more.
        raise next((e for e in failures if e.kind != "unreachable"), failures[-1])

    async def _open(
        self, sock: socket.socket, target: Target, until: float, make: Callable[[], Connection]
    ) -> Connection:
        loop = asyncio.get_running_loop()
        if target.scheme == "http":
            return (await loop.create_connection(make, sock=sock))[1]
        # `ssl_handshake_timeout` only has to be later than ours, which says which phase it was.
        async with self._within("tls", self._limits.tls, until, "the TLS handshake did not end"):
            try:
                _, connection = await loop.create_connection(
                    make,
                    sock=sock,
                    ssl=self._tls,
                    server_hostname=target.host,
                    ssl_handshake_timeout=self._limits.tls + 60,
                    ssl_shutdown_timeout=SHUTDOWN,
                )
            except ssl.SSLCertVerificationError as e:
                raise NoConnection("tls", f"the certificate is not valid: {e.verify_message}") from e
            except ssl.SSLError as e:
                raise NoConnection("tls", f"the TLS handshake failed ({e.reason})") from e
            except ConnectionError as e:
                raise NoConnection("tls", "the connection was closed in the TLS handshake") from e
        return connection

    @contextlib.asynccontextmanager
    async def _within(self, phase: str, seconds: float, until: float, said: str) -> AsyncIterator[None]:
        if self._stopping:
            raise NoConnection("stopped", "the server is stopping")
        began = self._monotonic()
        left = max(0.0, min(seconds, until - began))
        try:
            async with asyncio.timeout(left) as scope:
                self._scopes.add(scope)
                try:
                    yield
                finally:
                    self._scopes.discard(scope)
        except TimeoutError as e:
            if self._stopping:
                raise NoConnection("stopped", "the server is stopping") from e
            raise NoConnection(f"timeout:{phase}", f"{said} within {left:.1f} s") from e


async def _tcp(address: Address, port: int) -> socket.socket:
    sock = None
    try:
        v6 = isinstance(address, IPv6Address)
        sock = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (str(address), port))
    except BaseException as e:
        if sock is not None:
            sock.close()
        if isinstance(e, TimeoutError) or not isinstance(e, OSError):
            raise
        kind = "refused" if isinstance(e, ConnectionRefusedError) else "unreachable"
        raise NoConnection(kind, f"{address} port {port}: {e.strerror or type(e).__name__}") from e
    return sock
