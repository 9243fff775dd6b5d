"""Where a sender connects to, and whom it believes."""

import asyncio
import contextlib
import errno
import ipaddress
import os
import resource
import socket
import ssl
import warnings
from collections.abc import Iterator

import pytest

from crewcast.core import url
from crewcast.dispatch.egress import EgressPolicy
from crewcast.dispatch.sender import Sender, _tls_context
from tests.contract.sender.subscriber import (
    DEV,
    HEADERS,
    OK,
    FakeResolver,
    Peer,
    Subscriber,
    answers,
    until,
)

AGAIN = answers(OK, then="again")
STRICT = EgressPolicy(allow_http=True)


@contextlib.contextmanager
def _closed_port(host: str = "127.0.0.1") -> Iterator[int]:
    """Nobody listens at it, and nobody else can take it."""
    with socket.socket() as sock:
        sock.bind((host, 0))
        yield sock.getsockname()[1]


async def _post(sender: Sender, text: str):
    try:
        return await sender.post(url.parse(text), HEADERS, b"{}")
    finally:
        await sender.close()


def test_connection_refused(run):
    with _closed_port() as port:
        outcome = run(_post(Sender(DEV), f"http://127.0.0.1:{port}/?token=secret"))
    assert (outcome.kind, outcome.status) == ("refused", None)
    assert "secret" not in str(outcome)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "localhost", "a.localhost"])
def test_blocked_by_the_url_alone(run, host):
    async def scenario():
        resolver = FakeResolver(["127.0.0.1"])
        sender = Sender(STRICT, resolver=resolver)
        async with Subscriber(AGAIN) as subscriber:
            outcome = await _post(sender, f"http://{host}:{subscriber.port}/?token=secret")
            assert (outcome.kind, outcome.status) == ("blocked", None)
            assert "secret" not in str(outcome)
            assert subscriber.accepts == 0
            assert not resolver.asked

    run(scenario())


def test_http_is_blocked_unless_allowed(run):
    outcome = run(_post(Sender(EgressPolicy()), "http://example.com/"))
    assert (outcome.kind, outcome.detail) == ("blocked", "is not https")


@pytest.mark.parametrize(
    ("addresses", "told"),
    [
        (["127.0.0.1"], "127.0.0.1, a loopback address"),
        (["::ffff:127.0.0.1"], "(127.0.0.1), an IPv4 address in an IPv6 one"),
        (["10.0.0.1", "127.0.0.1", "::1"], "10.0.0.1, a private address"),
    ],
)
def test_a_name_without_an_allowed_address_is_blocked(run, addresses, told):
    async def scenario():
        sender = Sender(STRICT, resolver=FakeResolver(addresses))
        async with Subscriber(AGAIN) as subscriber:
            outcome = await _post(sender, f"http://hooks.example:{subscriber.port}/")
            assert outcome.kind == "blocked"
            assert told in (outcome.detail or "")
            assert subscriber.accepts == 0

    run(scenario())


@pytest.mark.parametrize("inner", ["127.0.0.2", "::1"])
@pytest.mark.parametrize("first", [True, False])
def test_of_mixed_addresses_the_allowed_ones_alone_are_tried(run, inner, first):
    """127.0.0.1 plays the public address. Even when it refuses, the other is not there."""

    async def scenario():
        policy = EgressPolicy(allow_http=True, allow=(ipaddress.ip_network("127.0.0.1/32"),))
        addresses = [inner, "127.0.0.1"] if first else ["127.0.0.1", inner]
        sender = Sender(policy, resolver=FakeResolver(addresses))
        with _closed_port() as port:
            async with Subscriber(AGAIN) as good, Subscriber(AGAIN, host=inner, port=port) as internal:
                assert (await sender.post(good.target(host="hooks.example"), HEADERS, b"")).accepted
                outcome = await _post(sender, f"http://hooks.example:{internal.port}/")
                assert outcome.kind == "refused"
                assert inner not in (outcome.detail or "")
                assert (good.accepts, internal.accepts) == (1, 0)

    run(scenario())


def test_rebinding(run):
    """A name that was good at first and is internal later: each connect decides anew, by the address it uses."""

    async def scenario():
        async with Subscriber(answers(OK)) as good, Subscriber(AGAIN, host="127.0.0.2") as internal:
            public = ["127.0.0.1"]
            resolver = FakeResolver(public, ["127.0.0.2"])
            policy = EgressPolicy(allow_http=True, allow=(ipaddress.ip_network("127.0.0.1/32"),))
            sender = Sender(policy, resolver=resolver)
            target = url.parse(f"http://hooks.example:{good.port}/")
            assert (await sender.post(target, HEADERS, b"")).accepted
            await until(lambda: not sender._pool._idle)  # the connection is closed
            kinds = [(await sender.post(target, HEADERS, b"")).kind for _ in range(3)]
            other = url.parse(f"http://hooks.example:{internal.port}/")
            kinds.append((await sender.post(other, HEADERS, b"")).kind)
            await sender.close()
            assert kinds == ["blocked"] * 4
            assert (good.accepts, internal.accepts) == (1, 0)
            assert (
                resolver.asked == ["hooks.example"] * 5
            )  # one lookup for each connect, none behind our back

    run(scenario())


def test_a_kept_connection_stays_with_its_checked_address(run):
    async def scenario():
        async with Subscriber(AGAIN) as subscriber:
            policy = EgressPolicy(allow_http=True, allow=(ipaddress.ip_network("127.0.0.1/32"),))
            sender = Sender(policy, resolver=FakeResolver(["127.0.0.1"], ["127.0.0.2"]))
            for _ in range(3):
                assert (await sender.post(subscriber.target(host="hooks.example"), HEADERS, b"")).accepted
            await sender.close()
            assert subscriber.accepts == 1

    run(scenario())


@pytest.mark.parametrize(
    "error", [socket.gaierror(-2, "Name or service not known"), UnicodeError("label too long")]
)
def test_a_name_that_does_not_resolve(run, error):
    outcome = run(_post(Sender(DEV, resolver=FakeResolver(error)), "https://hooks.example/?token=secret"))
    assert (outcome.kind, outcome.status) == ("dns", None)
    assert outcome.detail
    assert "secret" not in str(outcome)


def test_a_name_without_addresses(run):
    assert run(_post(Sender(DEV, resolver=FakeResolver([])), "https://hooks.example/")).kind == "dns"


def test_the_next_address_is_tried(run):
    async def scenario():
        async with Subscriber(AGAIN) as subscriber:
            # Nothing listens on the first two.
            sender = Sender(DEV, resolver=FakeResolver(["127.0.0.3", "127.0.0.2", "127.0.0.1"]))
            assert (await sender.post(subscriber.target(host="hooks.example"), HEADERS, b"")).accepted
            await sender.close()

    run(scenario())


def test_a_name_that_the_operator_vouches_for_may_be_anywhere(run):
    async def scenario():
        policy = EgressPolicy(allow_http=True, allow_hosts=("receiver", "*.inner.example"))
        async with Subscriber(AGAIN) as subscriber:
            sender = Sender(policy, resolver=FakeResolver(["127.0.0.1"]))
            kinds = [
                (await sender.post(subscriber.target(host=host), HEADERS, b"")).kind
                for host in ("receiver", "a.inner.example", "a.b.inner.example", "inner.example", "127.0.0.1")
            ]
            await sender.close()
            assert kinds == ["ok", "ok", "ok", "blocked", "blocked"]
            assert subscriber.accepts == 3

    run(scenario())


def test_a_denied_network_is_denied_to_everybody(run):
    async def scenario():
        policy = EgressPolicy(
            allow_http=True,
            allow_loopback=True,
            allow=(ipaddress.ip_network("127.0.0.0/8"),),
            allow_hosts=("receiver",),
            deny=(ipaddress.ip_network("127.0.0.1/32"),),
        )
        async with Subscriber(AGAIN) as subscriber:
            sender = Sender(policy, resolver=FakeResolver(["127.0.0.1"]))
            for host in ("receiver", "127.0.0.1", "localhost"):
                outcome = await sender.post(subscriber.target(host=host), HEADERS, b"")
                assert (outcome.kind, outcome.detail) == (
                    "blocked",
                    "goes to 127.0.0.1, which the operator denies",
                )
            await sender.close()
            assert subscriber.accepts == 0

    run(scenario())


def test_all_addresses_refuse(run):
    sender = Sender(DEV, resolver=FakeResolver(["127.0.0.3", "127.0.0.2"]))
    with _closed_port("0.0.0.0") as port:
        outcome = run(_post(sender, f"http://hooks.example:{port}/"))
    assert outcome.kind == "refused"


def test_localhost_in_dev(run):
    async def scenario():
        async with Subscriber(AGAIN) as subscriber:
            outcome = await _post(Sender(DEV), f"http://localhost:{subscriber.port}/")
            assert outcome.accepted

    run(scenario())


# TLS


def test_a_good_certificate_and_keep_alive(run, authority):
    async def scenario():
        sender = Sender(DEV, resolver=FakeResolver(["127.0.0.1"]), ssl_context=authority.client())
        async with Subscriber(AGAIN, authority.server("hooks.example")) as subscriber:
            body = b"x" * 300_000
            for _ in range(5):
                outcome = await sender.post(subscriber.target(host="hooks.example"), HEADERS, body)
                assert (outcome.kind, outcome.detail) == ("ok", "ok")
            await sender.close()
            assert subscriber.accepts == 1
            assert all(sent == body for _, sent in subscriber.requests)

    run(scenario())


@pytest.mark.parametrize(
    ("name", "days", "since", "said"),
    [
        ("other.example", 30, -60, "Hostname mismatch"),
        ("hooks.example", -1, -60, "expired"),
        ("hooks.example", 30, 1, "not yet valid"),
    ],
)
def test_a_bad_certificate(run, authority, name, days, since, said):
    async def scenario():
        sender = Sender(DEV, resolver=FakeResolver(["127.0.0.1"]), ssl_context=authority.client())
        async with Subscriber(AGAIN, authority.server(name, days, since)) as subscriber:
            outcome = await sender.post(subscriber.target(host="hooks.example"), HEADERS, b"{}")
            await sender.close()
            assert not subscriber.requests
            return outcome

    outcome = run(scenario())
    assert (outcome.kind, outcome.status) == ("tls", None)
    assert said in (outcome.detail or "")


def test_an_unknown_authority(run, authority):
    async def scenario():
        sender = Sender(DEV, resolver=FakeResolver(["127.0.0.1"]))  # believes the system's alone
        async with Subscriber(AGAIN, authority.server("hooks.example")) as subscriber:
            outcome = await sender.post(subscriber.target(host="hooks.example"), HEADERS, b"{}")
            await sender.close()
            assert not subscriber.requests
            return outcome

    outcome = run(scenario())
    assert outcome.kind == "tls"
    assert "certificate" in (outcome.detail or "")


@pytest.mark.parametrize("then", ["speaks http", "closes", "resets"])
def test_no_tls_on_the_other_side(run, then):
    async def script(peer: Peer) -> None:
        await peer.reader.read(10)
        if then == "speaks http":
            await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        if then == "resets":
            peer.reset()

    async def scenario():
        async with Subscriber(script) as subscriber:
            return await _post(Sender(DEV), f"https://127.0.0.1:{subscriber.port}/")

    assert run(scenario()).kind == "tls"


def test_a_stale_tls_connection_is_tried_again(run, authority):
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        if peer.number == 1:
            await peer.request()
            peer.writer.transport.abort()

    async def scenario():
        sender = Sender(DEV, resolver=FakeResolver(["127.0.0.1"]), ssl_context=authority.client())
        async with Subscriber(script, authority.server("hooks.example")) as subscriber:
            for body in (b"1", b"2"):
                assert (await sender.post(subscriber.target(host="hooks.example"), HEADERS, body)).accepted
            await sender.close()
            assert [body for _, body in subscriber.requests] == [b"1", b"2", b"2"]

    run(scenario())


def test_the_name_is_sent_as_sni(run, authority):
    async def scenario():
        seen: list[str | None] = []
        context = authority.server("hooks.example")
        context.sni_callback = lambda _socket, name, _context: seen.append(name)
        sender = Sender(DEV, resolver=FakeResolver(["127.0.0.1"]), ssl_context=authority.client())
        async with Subscriber(AGAIN, context) as subscriber:
            assert (await sender.post(subscriber.target(host="hooks.example"), HEADERS, b"")).accepted
            await sender.close()
        assert seen == ["hooks.example"]

    run(scenario())


def test_a_self_signed_certificate(run, authority):
    async def scenario():
        sender = Sender(DEV, resolver=FakeResolver(["127.0.0.1"]), ssl_context=authority.client())
        async with Subscriber(AGAIN, authority.self_signed("hooks.example")) as subscriber:
            outcome = await sender.post(subscriber.target(host="hooks.example"), HEADERS, b"{}")
            await sender.close()
            assert not subscriber.requests
            return outcome

    outcome = run(scenario())
    assert (outcome.kind, outcome.status) == ("tls", None)
    assert "self-signed" in (outcome.detail or "")


def test_a_certificate_for_a_name_is_none_for_its_address(run, authority):
    async def scenario():
        sender = Sender(DEV, ssl_context=authority.client())
        async with Subscriber(AGAIN, authority.server("hooks.example")) as subscriber:
            outcome = await sender.post(subscriber.target(), HEADERS, b"{}")
            await sender.close()
            return outcome

    outcome = run(scenario())
    assert outcome.kind == "tls"
    assert "IP address mismatch" in (outcome.detail or "")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_tls_is_not_spoken(run, authority, version):
    async def scenario():
        context = authority.server("hooks.example")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = context.maximum_version = version
        context.set_ciphers("ALL:@SECLEVEL=0")
        ours = _tls_context()
        ours.load_verify_locations(cadata=authority.pem())
        sender = Sender(DEV, resolver=FakeResolver(["127.0.0.1"]), ssl_context=ours)
        async with Subscriber(AGAIN, context) as subscriber:
            outcome = await sender.post(subscriber.target(host="hooks.example"), HEADERS, b"{}")
            # The same subscriber is fine once it speaks something newer: it was the version.
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            newer = await sender.post(subscriber.target(host="hooks.example"), HEADERS, b"{}")
            await sender.close()
            return outcome, newer

    outcome, newer = run(scenario())
    assert (outcome.kind, outcome.status) == ("tls", None)
    assert newer.accepted


def test_what_this_machine_is_out_of_is_not_the_subscriber_s_fault(run):
    async def scenario():
        async with Subscriber(AGAIN) as subscriber:
            sender = Sender(DEV)
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            # 0, 1 and 2 are taken, whatever the garbage collector closes meanwhile.
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
            try:
                outcome = await sender.post(subscriber.target(), HEADERS, b"")
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            again = await sender.post(subscriber.target(), HEADERS, b"")
            await sender.close()
            return outcome, again

    outcome, again = run(scenario())
    assert (outcome.kind, outcome.ours) == ("local", True)
    assert "open files" in (outcome.detail or "")
    assert again.accepted


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("code", [errno.EINVAL, errno.EHOSTUNREACH, errno.ECONNRESET, errno.ETIMEDOUT])
def test_whatever_the_system_says_of_a_new_connection_is_an_outcome(monkeypatch, scheme, code):
    """A host may become unreachable in the handshake; some systems tell of an early end by any call."""

    async def scenario():
        async def fails(*_: object, **__: object):
            raise OSError(code, os.strerror(code))

        async with Subscriber(AGAIN) as subscriber:
            monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", fails)
            outcome = await _post(Sender(DEV), f"{scheme}://127.0.0.1:{subscriber.port}/")
            monkeypatch.undo()
            return outcome

    outcome = asyncio.run(scenario())
    late = "timeout:tls" if scheme == "https" else "closed"
    early = "tls" if scheme == "https" else "closed"
    assert outcome.kind == (late if code == errno.ETIMEDOUT else early)
    assert outcome.detail
