"""Subscribers as they really are: a listening socket, and a script that may do anything with it."""

import asyncio
import contextlib
import datetime as dt
import ipaddress
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from crewcast.core import url
from crewcast.core.outcome import Outcome
from crewcast.core.url import Target
from crewcast.dispatch.egress import Address, EgressPolicy
from crewcast.dispatch.sender import Sender, SenderLimits

DEV = EgressPolicy(allow_http=True, allow_loopback=True)
HEADERS = [(b"content-type", b"application/json"), (b"webhook-id", b"evt_0_1")]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


_MAY_SIGN = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


class Peer:
    """One accepted connection. `number` counts from 1."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        self.reader = reader
        self.writer = writer
        self.number = number

    async def request(self) -> tuple[bytes, bytes]:
        """Head and body of the next request; raises IncompleteReadError when there is none."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        return head, await self.reader.readexactly(int(length.split(b":")[1]))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """Ends with RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def never(self) -> None:
        await asyncio.Event().wait()


Script = Callable[[Peer], Awaitable[None]]


class Subscriber:
    """`accepts` counts connections, `requests` holds what was received whole."""

    def __init__(
        self, script: Script, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self.accepts = 0
        self.requests: list[tuple[bytes, bytes]] = []
        self._script = script
        self._tls = tls
        self._host = host
        self._port = port
        self._tasks: set[asyncio.Task[None] | None] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._accept, self._host, self._port, ssl=self._tls, limit=2**20
        )
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for task in self._tasks:
            assert task
            task.cancel()
        await asyncio.gather(*filter(None, self._tasks), return_exceptions=True)
        await asyncio.sleep(0)

    def target(self, path: str = "/hook?token=secret", host: str = "127.0.0.1") -> Target:
        return url.parse(f"{'https' if self._tls else 'http'}://{host}:{self.port}{path}")

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepts += 1
        self._tasks.add(asyncio.current_task())
        peer = Peer(reader, writer, self.accepts)
        request = peer.request

        async def recorded() -> tuple[bytes, bytes]:
            self.requests.append(await request())
            return self.requests[-1]

        peer.request = recorded  # type: ignore[method-assign]
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self._script(peer)
        writer.transport.abort()


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def answers(*parts: bytes, then: str = "close") -> Script:
    """Reads a request, sends the parts, then closes, resets, stays silent or goes on with the next one."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            for part in parts:
                await peer.send(part)
                await asyncio.sleep(0.001)
            if then == "reset":
                peer.reset()
            if then == "never":
                await peer.never()
            if then != "again":
                break
        peer.writer.close()
        await peer.writer.wait_closed()

    return script


async def post_once(script: Script, body: bytes = b"{}", **limits: float) -> Outcome:
    """What a sender makes of the script; the connection is gone afterwards."""
    sender = Sender(DEV, limits=SenderLimits(**limits))  # type: ignore[arg-type]
    async with Subscriber(script) as subscriber:
        try:
            return await sender.post(subscriber.target(), HEADERS, body)
        finally:
            await sender.close()


class FakeResolver:
    """Answers in turn, the last one for ever. An exception is raised, None never answers."""

    def __init__(self, *answers: list[str] | Exception | None) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int) -> list[Address]:
        self.asked.append(host)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is None:
            await asyncio.Event().wait()
        if isinstance(answer, Exception):
            raise answer
        assert answer is not None
        return [ipaddress.ip_address(text) for text in answer]

    def close(self) -> None:
        pass


class Names:
    """Addresses by name; the first lookup of a name has its first list, the last one stays."""

    def __init__(self, **names: list[list[str]]) -> None:
        self._by = {name.replace("_", "."): FakeResolver(*lists) for name, lists in names.items()}
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int) -> list[Address]:
        self.asked.append(host)
        if host not in self._by:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return await self._by[host].resolve(host, port)

    def close(self) -> None:
        pass


class Authority:
    """A certificate authority of our own, and certificates by it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test Authority")])
        self._cert = self._sign(self._name, self._key.public_key(), [], days=30, authority=True)

    def server(self, name: str, days: int = 30, since: int = -60) -> ssl.SSLContext:
        """A server's context with a certificate for `name`, good from `since` days from now to `days`."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        cert = self._sign(
            subject, key.public_key(), [x509.DNSName(name)], since=since, days=days, authority=False
        )
        return self._context(f"{name}{days}", key, cert)

    def self_signed(self, name: str) -> ssl.SSLContext:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = dt.datetime.now(dt.UTC)
        cert = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .sign(key, hashes.SHA256())
        )
        return self._context(f"{name}-self", key, cert)

    def client(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=self.pem())

    def pem(self) -> str:
        return self._cert.public_bytes(serialization.Encoding.PEM).decode()

    def _context(self, file: str, key: ec.EllipticCurvePrivateKey, cert: x509.Certificate) -> ssl.SSLContext:
        pem = self._folder / f"{file}.pem"
        pem.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + cert.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        return context

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        names: list[x509.GeneralName],
        *,
        days: int,
        authority: bool,
        since: int = -60,
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        day = dt.timedelta(days=1)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + since * day)
            .not_valid_after(now + days * day)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            # Newer Pythons ask for what real authorities always write.
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )
        if authority:
            builder = builder.add_extension(_MAY_SIGN, critical=True)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())
