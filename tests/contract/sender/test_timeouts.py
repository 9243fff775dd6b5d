"""Every phase has an end, and the whole has one."""

import asyncio
import contextlib
import re
import socket
import time

import pytest

from crewcast.core import url
from crewcast.dispatch.sender import Sender, SenderLimits
from tests.contract.sender.subscriber import (
    DEV,
    HEADERS,
    OK,
    FakeResolver,
    Peer,
    Subscriber,
    answers,
    post_once,
)

LATE = 9.0  # far more than any limit below, less than the defaults


@pytest.fixture(autouse=True)
def _in_time():
    began = time.monotonic()
    yield
    assert time.monotonic() - began < LATE


def test_no_answer_in_the_total_time(run):
    outcome = run(post_once(answers(then="never"), total=1))
    assert (outcome.kind, outcome.status) == ("timeout:response", None)
    assert outcome.duration >= 1_000_000


def test_no_answer_in_the_time_for_the_first_byte(run):
    outcome = run(post_once(answers(then="never"), response=0.2))
    assert outcome.kind == "timeout:response"
    # The way to the subscriber counts, too.
    [waited] = re.findall(r"within (\d+\.\d) s", outcome.detail or "")
    assert 0.2 <= float(waited) < LATE


def test_the_time_for_the_first_byte_ends_with_it(run):
    async def slow(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK[:1])
        await asyncio.sleep(1.5)
        await peer.send(OK[1:])

    assert run(post_once(slow, response=1)).accepted


@pytest.mark.parametrize(
    "head", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"]
)
def test_a_drip_is_not_an_answer(run, head):
    async def drip(peer: Peer) -> None:
        await peer.request()
        await peer.send(head)
        for byte in b"HTTP/1.1 200 OK\r\nX: " + b"y" * 5000 if not head else b"X: " + b"y" * 5000:
            await peer.send(bytes([byte]))
            await asyncio.sleep(0.02)

    outcome = run(post_once(drip, total=1))
    assert (outcome.kind, outcome.status) == ("timeout:total", None)


def test_an_answer_that_stops_in_the_body(run):
    script = answers(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nok", then="never")
    outcome = run(post_once(script, total=1))
    assert (outcome.kind, outcome.accepted) == ("timeout:total", False)
    assert "begun with status 200" in (outcome.detail or "")


def test_a_slow_flood_of_1xx(run):
    async def script(peer: Peer) -> None:
        await peer.request()
        while True:
            await peer.send(b"HTTP/1.1 102 Processing\r\n\r\n")
            await asyncio.sleep(0.3)

    assert run(post_once(script, total=1)).kind == "timeout:total"


def test_a_request_that_nobody_reads(run):
    async def script(peer: Peer) -> None:
        await peer.never()

    outcome = run(post_once(script, body=b"x" * 64 * 2**20, write=0.2))
    assert (outcome.kind, outcome.status) == ("timeout:write", None)


def test_a_request_that_is_read_late_is_no_failure(run):
    async def script(peer: Peer) -> None:
        await asyncio.sleep(0.2)
        await peer.request()
        await peer.send(OK)

    assert run(post_once(script, body=b"x" * 16 * 2**20, write=LATE)).accepted


def test_a_kept_connection_has_the_same_limits(run):
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.request()
        await peer.never()

    async def scenario():
        sender = Sender(DEV, limits=SenderLimits(total=1))
        async with Subscriber(script) as subscriber:
            assert (await sender.post(subscriber.target(), HEADERS, b"")).accepted
            outcome = await sender.post(subscriber.target(), HEADERS, b"")
            await sender.close()
            assert outcome.kind == "timeout:response"
            assert subscriber.accepts == 1

    run(scenario())


def test_a_name_that_is_not_resolved_in_time(run):
    async def scenario():
        sender = Sender(DEV, limits=SenderLimits(resolve=0.1), resolver=FakeResolver(None))
        outcome = await sender.post(url.parse("https://hooks.example/?token=secret"), HEADERS, b"")
        await sender.close()
        return outcome

    outcome = run(scenario())
    assert outcome.kind == "timeout:resolve"
    assert outcome.duration >= 100_000


@contextlib.contextmanager
def _deaf(fill: int = 4):
    """A port that lets no handshake end: its backlog is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(fill):
            caller = stack.enter_context(socket.socket())
            caller.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                caller.connect(listener.getsockname())
        yield listener.getsockname()[1]


def test_a_host_that_does_not_answer_the_connect(run):
    async def scenario(port):
        sender = Sender(DEV, limits=SenderLimits(connect=0.2))
        outcome = await sender.post(url.parse(f"http://127.0.0.1:{port}/"), HEADERS, b"")
        await sender.close()
        return outcome

    with _deaf() as port:
        outcome = run(scenario(port))
    assert outcome.kind == "timeout:connect"
    assert "127.0.0.1" in (outcome.detail or "")


def test_a_silent_address_leaves_time_for_the_next(run):
    async def scenario(port):
        resolver = FakeResolver(["127.0.0.1", "127.0.0.2"])
        sender = Sender(DEV, limits=SenderLimits(connect=2), resolver=resolver)
        async with Subscriber(answers(OK), host="127.0.0.2", port=port) as subscriber:
            outcome = await sender.post(subscriber.target(host="hooks.example"), HEADERS, b"")
            await sender.close()
            return outcome

    with _deaf() as port:
        assert run(scenario(port)).accepted


def test_a_tls_handshake_that_does_not_end(run):
    async def scenario():
        sender = Sender(DEV, limits=SenderLimits(tls=0.2))

        async def silent(peer: Peer) -> None:
            await peer.never()

        async with Subscriber(silent) as subscriber:
            target = url.parse(f"https://127.0.0.1:{subscriber.port}/")
            outcome = await sender.post(target, HEADERS, b"")
            await sender.close()
            return outcome

    assert run(scenario()).kind == "timeout:tls"


def test_the_total_covers_the_phases_before(run):
    async def scenario():
        sender = Sender(DEV, limits=SenderLimits(total=0.2), resolver=FakeResolver(None))
        outcome = await sender.post(url.parse("https://hooks.example/"), HEADERS, b"")
        await sender.close()
        return outcome

    assert run(scenario()).kind == "timeout:resolve"
