"""A forward proxy: told the address that was checked, blamed for what is its own, and asked for nothing else."""

import asyncio
import base64
import contextlib
import ipaddress
import logging
import socket
from typing import Self

import pytest

from crewcast.core import url
from crewcast.dispatch import proxy
from crewcast.dispatch.egress import EgressPolicy
from crewcast.dispatch.proxy import Proxy
from crewcast.dispatch.sender import Sender, SenderLimits
from tests.contract.sender.subscriber import (
    HEADERS,
    OK,
    FakeResolver,
    Names,
    Peer,
    Script,
    Subscriber,
    answers,
    until,
)

AGAIN = answers(OK, then="again")
HTTP = EgressPolicy(allow_http=True)
PUBLIC = ["93.184.216.34"]


class Forwarder:
    """A proxy on loopback. Whatever address it is told, it connects to `port` there, or plays `script`."""

    def __init__(self, port: int = 0, script: Script | None = None, refuse: int = 0) -> None:
        self._to = port
        self._refuse = refuse
        self.heads: list[bytes] = []
        self.passed = b""
        self._serving = Subscriber(script or self._forward)

    async def __aenter__(self) -> Self:
        await self._serving.__aenter__()
        self.proxy = Proxy("127.0.0.1", self._serving.port)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._serving.__aexit__(*exc)

    @property
    def accepts(self) -> int:
        return self._serving.accepts

    @property
    def told(self) -> list[str]:
        return [head.split()[1].decode() for head in self.heads]

    async def _forward(self, peer: Peer) -> None:
        self.heads.append(await peer.reader.readuntil(b"\r\n\r\n"))
        if len(self.heads) <= self._refuse:
            await peer.send(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nnope")
            return
        reader, writer = await asyncio.open_connection("127.0.0.1", self._to)
        await peer.send(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 test\r\n\r\n")

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(65536):
                    self.passed += data
                    sink.write(data)
                    await sink.drain()
            with contextlib.suppress(OSError):
                sink.write_eof()

        try:
            await asyncio.gather(pump(peer.reader, writer), pump(reader, peer.writer))
        finally:
            writer.transport.abort()


def says(answer: bytes, then: str = "close") -> Script:
    async def script(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        if then == "reset":
            peer.reset()
            return
        await peer.send(answer)
        if then == "never":
            await peer.never()
        if then == "more":
            while True:
                await peer.send(b"X: y\r\n" * 200)
        peer.writer.close()
        await peer.writer.wait_closed()

    return script


def test_the_proxy_is_told_the_checked_address_and_the_subscriber_the_name(run, authority):
    async def scenario():
        seen: list[str | None] = []
        context = authority.server("hooks.example")
        context.sni_callback = lambda _socket, name, _context: seen.append(name)
        async with Subscriber(AGAIN, context) as subscriber, Forwarder(subscriber.port) as forwarder:
            sender = Sender(
                EgressPolicy(),
                resolver=FakeResolver(PUBLIC),
                ssl_context=authority.client(),
                proxy=forwarder.proxy,
            )
            target = url.parse("https://hooks.example:8443/a?token=secret")
            for _ in range(3):
                outcome = await sender.post(target, HEADERS, b'{"a": 1}')
                assert (outcome.kind, outcome.detail) == ("ok", "ok")
            await sender.close()
            assert forwarder.heads == [
                b"CONNECT 93.184.216.34:8443 HTTP/1.1\r\nHost: 93.184.216.34:8443\r\n\r\n"
            ]
            assert seen == ["hooks.example"]
            assert [body for _, body in subscriber.requests] == [b'{"a": 1}'] * 3
            assert b"Host: hooks.example:8443\r\n" in subscriber.requests[0][0]
            # What passes the proxy is TLS.
            assert len(forwarder.passed) > 1000
            assert b"webhook-id" not in forwarder.passed
            assert b"secret" not in forwarder.passed

    run(scenario())


def test_plain_http_goes_through_a_tunnel_too(run):
    async def scenario():
        async with Subscriber(AGAIN) as subscriber, Forwarder(subscriber.port) as forwarder:
            forwarder.proxy = Proxy("127.0.0.1", forwarder.proxy.port, b"Basic dTpw")
            sender = Sender(HTTP, resolver=FakeResolver(["2606:4700:4700::1111"]), proxy=forwarder.proxy)
            assert (await sender.post(url.parse("http://hooks.example/a?b=c"), HEADERS, b"{}")).accepted
            await sender.close()
            [asked] = forwarder.heads
            assert asked == (
                b"CONNECT [2606:4700:4700::1111]:80 HTTP/1.1\r\nHost: [2606:4700:4700::1111]:80\r\n"
                b"Proxy-Authorization: Basic dTpw\r\n\r\n"
            )
            [(head, _)] = subscriber.requests
            assert head.startswith(b"POST /a?b=c HTTP/1.1\r\nHost: hooks.example\r\n")
            assert b"proxy" not in head.lower()

    run(scenario())


@pytest.mark.parametrize(
    "link",
    [
        "http://127.0.0.1/",
        "http://[::1]/",
        "http://localhost/",
        "http://10.0.0.1/",
        "http://169.254.169.254/",
        "http://inner.example/",
        "http://mapped.example/",
    ],
)
def test_what_is_not_allowed_is_not_asked_of_the_proxy_either(run, link):
    async def scenario():
        resolver = Names(inner_example=[["10.0.0.1"]], mapped_example=[["::ffff:127.0.0.1"]])
        async with Forwarder() as forwarder:
            sender = Sender(HTTP, resolver=resolver, proxy=forwarder.proxy)
            assert (await sender.post(url.parse(link), HEADERS, b"")).kind == "blocked"
            await sender.close()
            assert forwarder.accepts == 0

    run(scenario())


def test_rebinding_behind_a_proxy(run):
    """The proxy never sees a name that it could look up anew, and each connect is decided anew."""

    async def scenario():
        async with Subscriber(answers(OK)) as subscriber, Forwarder(subscriber.port) as forwarder:
            resolver = FakeResolver(PUBLIC, ["127.0.0.1"], ["10.0.0.1", *PUBLIC])
            sender = Sender(HTTP, resolver=resolver, proxy=forwarder.proxy)
            target = url.parse("http://hooks.example/")
            kinds = []
            for _ in range(3):
                kinds.append((await sender.post(target, HEADERS, b"")).kind)
                await until(lambda: not sender._pool._idle)  # the connection is closed
            await sender.close()
            assert kinds == ["ok", "blocked", "ok"]
            assert forwarder.told == ["93.184.216.34:80"] * 2

    run(scenario())


def test_the_next_address_is_tried(run):
    async def scenario():
        async with Subscriber(AGAIN) as subscriber, Forwarder(subscriber.port, refuse=1) as forwarder:
            resolver = FakeResolver(["2606:4700:4700::1111", *PUBLIC])
            sender = Sender(HTTP, resolver=resolver, proxy=forwarder.proxy)
            assert (await sender.post(url.parse("http://hooks.example/"), HEADERS, b"")).accepted
            await sender.close()
            assert forwarder.told == ["[2606:4700:4700::1111]:80", "93.184.216.34:80"]

    run(scenario())


@pytest.mark.parametrize(
    "policy",
    [
        EgressPolicy(allow_http=True, allow_loopback=True),
        EgressPolicy(allow_http=True, allow=(ipaddress.ip_network("127.0.0.0/8"),)),
        EgressPolicy(allow_http=True, allow_hosts=("hooks.example",)),
    ],
)
def test_an_address_that_is_not_public_means_nothing_to_the_proxy(run, policy):
    """127.0.0.1 would be the proxy itself."""

    async def scenario():
        async with Subscriber(AGAIN) as subscriber, Forwarder() as forwarder:
            sender = Sender(policy, resolver=FakeResolver(["127.0.0.1"]), proxy=forwarder.proxy)
            assert (await sender.post(subscriber.target(host="hooks.example"), HEADERS, b"")).accepted
            await sender.close()
            assert forwarder.accepts == 0

    run(scenario())


def test_the_proxy_itself_may_be_a_name_and_needs_no_rule(run):
    async def scenario():
        async with Subscriber(AGAIN) as subscriber, Forwarder(subscriber.port) as forwarder:
            # Nothing listens at its first address.
            resolver = Names(hooks_example=[PUBLIC], proxy_internal=[["127.0.0.2", "127.0.0.1"]])
            sender = Sender(HTTP, resolver=resolver, proxy=Proxy("proxy.internal", forwarder.proxy.port))
            assert (await sender.post(url.parse("http://hooks.example/"), HEADERS, b"")).accepted
            outcome = await sender.post(url.parse("http://proxy.internal/"), HEADERS, b"")
            await sender.close()
            assert resolver.asked == ["hooks.example", "proxy.internal", "proxy.internal"]
            assert outcome.kind == "blocked"  # for a subscriber the rule is the rule
            assert forwarder.accepts == 1

    run(scenario())


FAILURES = {
    "407": (says(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"), "wants other credentials"),
    "403": (says(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 6\r\n\r\nsquid!"), "forbids the connection"),
    "502": (says(b"HTTP/1.1 502 Bad Gateway\r\n\r\n"), "made no connection (status 502)"),
    "503": (says(b"HTTP/1.0 503 Service Unavailable\r\n\r\n"), "(status 503)"),
    "504": (says(b"HTTP/1.1 504\r\n\r\n"), "(status 504)"),
    "a redirect": (says(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\n\r\n"), "(status 302)"),
    "an interim answer": (says(b"HTTP/1.1 100 Continue\r\n\r\n"), "(status 100)"),
    "garbage": (says(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), "not valid HTTP"),
    "a status of four digits": (says(b"HTTP/1.1 2000 OK\r\n\r\n"), "not valid HTTP"),
    "an answer of the subscriber's": (says(b"HTTP/1.1 200 OK\r\n\r\n" + OK), "more than its answer"),
    "a body": (says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), "more than its answer"),
    "half an answer": (says(b"HTTP/1.1 200 OK\r\n"), "closed the connection"),
    "nothing": (says(b""), "closed the connection"),
    "a reset": (says(b"", then="reset"), "broke"),
    "an endless answer": (says(b"HTTP/1.1 200 OK\r\n", then="more"), "does not end"),
    "silence": (says(b"", then="never"), "made no connection within 0.3 s"),
    "a slow answer": (says(b"HTTP/1.1 200 OK\r\n", then="never"), "made no connection within 0.3 s"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_of_the_proxy_is_ours_and_not_the_subscriber_s(run, name, caplog):
    script, said = FAILURES[name]
    caplog.set_level(logging.DEBUG)

    async def scenario():
        async with Forwarder(script=script) as forwarder:
            via = proxy.parse(f"http://user:hunter2@127.0.0.1:{forwarder.proxy.port}")
            limits = SenderLimits(connect=0.3 if "0.3 s" in said else 50)
            sender = Sender(HTTP, limits=limits, resolver=FakeResolver(PUBLIC), proxy=via)
            outcome = await sender.post(url.parse("http://hooks.example/?token=secret"), HEADERS, b"")
            await sender.close()
            return outcome, via

    outcome, via = run(scenario())
    assert (outcome.kind, outcome.status, outcome.ours) == ("proxy", None, True)
    assert said in (outcome.detail or "")
    # Neither what it is told nor where it is.
    for text in (str(outcome), repr(via), caplog.text):
        assert "hunter2" not in text
        assert base64.b64encode(b"user:hunter2").decode() not in text
    assert str(via.port) not in str(outcome)
    assert "secret" not in str(outcome)


def test_a_proxy_that_cannot_be_reached(run):
    async def scenario(via: Proxy):
        sender = Sender(HTTP, resolver=Names(hooks_example=[PUBLIC]), proxy=via)
        outcome = await sender.post(url.parse("http://hooks.example/"), HEADERS, b"")
        await sender.close()
        return outcome.kind, outcome.detail

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        closed = Proxy("127.0.0.1", sock.getsockname()[1])
        assert run(scenario(closed)) == ("proxy", "the proxy cannot be reached")
        unknown = Proxy("proxy.internal", 3128)
        assert run(scenario(unknown)) == ("proxy", "the proxy's name could not be resolved")


def test_a_subscriber_behind_the_proxy_is_judged_as_any_other(run, authority):
    async def scenario():
        async with (
            Subscriber(AGAIN, authority.server("other.example")) as subscriber,
            Forwarder(subscriber.port) as forwarder,
        ):
            sender = Sender(
                EgressPolicy(),
                resolver=FakeResolver(PUBLIC),
                ssl_context=authority.client(),
                proxy=forwarder.proxy,
            )
            outcome = await sender.post(url.parse("https://hooks.example/"), HEADERS, b"")
            await sender.close()
            return outcome

    outcome = run(scenario())
    assert (outcome.kind, outcome.ours) == ("tls", False)
    assert "Hostname mismatch" in (outcome.detail or "")


def test_the_end_of_the_sender_ends_a_wait_for_the_proxy(run):
    async def scenario():
        async with Forwarder(script=says(b"", then="never")) as forwarder:
            sender = Sender(HTTP, resolver=FakeResolver(PUBLIC), proxy=forwarder.proxy)
            post = asyncio.ensure_future(sender.post(url.parse("http://hooks.example/"), HEADERS, b""))
            await until(lambda: forwarder.accepts)
            await sender.close()
            assert post.result().kind == "stopped"

    run(scenario())
