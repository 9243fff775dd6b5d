"""The way to a subscriber: resolve, check every address, connect to a checked one, TLS."""

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from ipaddress import IPv6Address

from crewcast.core.url import Target
from crewcast.dispatch import proxy
from crewcast.dispatch.connection import Connection
from crewcast.dispatch.egress import Address, EgressPolicy, literal, special
from crewcast.dispatch.limits import SenderLimits
from crewcast.dispatch.proxy import Proxy
from crewcast.dispatch.resolver import Resolver

MOST_ADDRESSES = 8  # of one name that are tried; all are checked
NOT_SENT = "the connection was closed before the request was sent"
SHUTDOWN = 1.0  # seconds that a TLS connection may take to say goodbye
# What this machine is out of: files, memory, ports. It says nothing of the subscriber.
_OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


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
        via: Proxy | None,
    ) -> None:
        self._policy = policy
        self._limits = limits
        self._resolver = resolver
        self._tls = tls
        self._monotonic = monotonic
        self._via = via
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
        """Addresses that may be connected to: of those that the name has, the ones that are allowed.

        The others are as good as not there: whether one of them answers is never tried.
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
                raise _unresolved(e) from e
        if not addresses:
            raise NoConnection("dns", "the name has no address")
        reasons = [self._policy.check_address(address, target.host) for address in addresses]
        allowed = [address for address, no in zip(addresses, reasons, strict=True) if no is None]
        if not allowed:
            raise NoConnection("blocked", next(filter(None, reasons)))
        return allowed[:MOST_ADDRESSES]

    async def _connect(self, addresses: list[Address], port: int, until: float) -> socket.socket:
        """The first address that answers, in the system's order; each gets its share of the time left."""
        until = min(until, self._monotonic() + self._limits.connect)
        failures = []
        for n, address in enumerate(addresses):
            share = (until - self._monotonic()) / (len(addresses) - n)
            try:
                return await self._reach(address, port, share, until)
            except NoConnection as e:
                failures.append(e)
                if e.kind in ("stopped", "local"):
                    raise
        # A machine without IPv6 finds such addresses unreachable; what the others said tells more.
        raise next((e for e in failures if e.kind != "unreachable"), failures[-1])

    async def _reach(self, address: Address, port: int, seconds: float, until: float) -> socket.socket:
        """Public addresses are reached by the proxy, if there is one.

        What else is allowed is on a network of the operator's, or on this machine. The same address
        may be another machine to the proxy, 127.0.0.1 the proxy itself.
        """
        if self._via is None or special(address) is not None:
            async with self._within("connect", seconds, until, f"{address} did not answer"):
                return await _tcp(address, port)
        async with self._within("proxy", seconds, until, "the proxy made no connection"):
            return await self._tunnel(self._via, address, port, seconds)

    async def _tunnel(self, via: Proxy, address: Address, port: int, seconds: float) -> socket.socket:
        """A connection to the address, made by the proxy. Whatever is wrong is the proxy's, and said so."""
        own = literal(via.host)
        try:
            proxies = [own] if own else (await self._resolver.resolve(via.host, via.port))[:MOST_ADDRESSES]
        except (OSError, UnicodeError) as e:
            raise NoConnection("proxy", "the proxy's name could not be resolved") from e
        why: NoConnection | TimeoutError | None = None
        for place in proxies:
            try:
                async with asyncio.timeout(seconds / len(proxies)):
                    sock = await _tcp(place, via.port)
                break
            except (NoConnection, TimeoutError) as e:
                if isinstance(e, NoConnection) and e.kind == "local":
                    raise
                why = e
        else:
            raise NoConnection("proxy", "the proxy cannot be reached") from why
        try:
            await _ask(sock, proxy.request(via, address, port))
        except BaseException:
            sock.close()
            raise
        return sock

    async def _open(
        self, sock: socket.socket, target: Target, until: float, make: Callable[[], Connection]
    ) -> Connection:
        loop = asyncio.get_running_loop()
        if target.scheme == "http":
            try:
                return (await loop.create_connection(make, sock=sock))[1]
            except OSError as e:  # some systems tell of an early end by the first call that follows
                raise NoConnection("closed", NOT_SENT) from e
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
            except TimeoutError:
                raise
            except OSError as e:
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
            kind = "proxy" if phase == "proxy" else f"timeout:{phase}"
            raise NoConnection(kind, f"{said} within {left:.1f} s") from e


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
        # A machine without IPv6 says that it has no address for it; for IPv4 it is out of ports.
        if e.errno in _OURS or (e.errno == errno.EADDRNOTAVAIL and not v6):
            raise NoConnection("local", f"this machine cannot connect: {e.strerror}") from e
        kind = "refused" if isinstance(e, ConnectionRefusedError) else "unreachable"
        raise NoConnection(kind, f"{address} port {port}: {e.strerror or type(e).__name__}") from e
    return sock


async def _ask(sock: socket.socket, connect: bytes) -> None:
    """Has the proxy make the connection that `connect` asks for."""
    loop = asyncio.get_running_loop()
    answer = b""
    try:
        await loop.sock_sendall(sock, connect)
        while proxy.END not in answer:
            piece = await loop.sock_recv(sock, 4096)
            answer += piece
            if not piece or len(answer) > proxy.MOST_ANSWER:
                said = "its answer does not end" if piece else "it closed the connection"
                raise NoConnection("proxy", f"the proxy made no connection: {said}")
    except OSError as e:
        if isinstance(e, TimeoutError):
            raise
        raise NoConnection("proxy", "the connection to the proxy broke") from e
    if reason := proxy.refusal(answer):
        raise NoConnection("proxy", reason)


def _unresolved(e: OSError | UnicodeError) -> NoConnection:
    if isinstance(e, OSError) and not isinstance(e, socket.gaierror) and e.errno in _OURS:
        return NoConnection("local", f"this machine cannot resolve names: {e.strerror}")
    return NoConnection(
        "dns", e.strerror if isinstance(e, OSError) and e.strerror else "the name is not valid"
    )
