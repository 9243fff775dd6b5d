"""What no honest subscriber does: ends at every point, wrong framing, floods, answers that nobody asked for.

The plain kinds of answers are in test_answers, the waits in test_timeouts, the certificates in test_reach.
"""

import asyncio
import contextlib
import socket
import ssl
import threading

import pytest

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

HEAD = b"HTTP/1.1 200 OK\r\n"
AGAIN = answers(OK, then="again")


# --- framing ----------------------------------------------------------------------------------

LENGTHS = {
    "two that differ": b"Content-Length: 2\r\nContent-Length: 3\r\n",
    "two in one": b"Content-Length: 2, 3\r\n",
    "negative": b"Content-Length: -2\r\n",
    "signed": b"Content-Length: +2\r\n",
    "hexadecimal": b"Content-Length: 0x2\r\n",
    "a fraction": b"Content-Length: 2.0\r\n",
    "empty": b"Content-Length: \r\n",
    "with a space in it": b"Content-Length: 2 0\r\n",
    "beyond 64 bits": b"Content-Length: 18446744073709551616\r\n",
    "of 30 digits": b"Content-Length: " + b"9" * 30 + b"\r\n",
    "and chunks": b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
    "and chunks before it": b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n",
    "with a space before the colon": b"Content-Length : 2\r\n",
    "in a folded line": b"Content-Length:\r\n 2\r\n",
}


@pytest.mark.parametrize("name", LENGTHS)
def test_a_length_that_is_none(run, name):
    outcome = run(post_once(answers(HEAD + LENGTHS[name] + b"\r\nok")))
    assert (outcome.kind, outcome.status, outcome.accepted) == ("protocol", None, False)


def test_a_length_that_is_too_small_spoils_the_connection_and_not_the_outcome(run):
    async def scenario():
        sender = Sender(DEV)
        async with Subscriber(answers(HEAD + b"Content-Length: 1\r\n\r\nok", then="again")) as subscriber:
            for _ in range(3):
                outcome = await sender.post(subscriber.target(), HEADERS, b"")
                assert (outcome.kind, outcome.detail) == ("ok", "o")
            await sender.close()
            assert subscriber.accepts == 3

    run(scenario())


@pytest.mark.parametrize("then", ["close", "reset", "never"])
def test_a_length_that_is_too_large(run, then):
    # The answer has to begin within this, too.
    total = 1 if then == "never" else 50
    outcome = run(post_once(answers(HEAD + b"Content-Length: 3\r\n\r\nok", then=then), total=total))
    assert outcome.kind == {"close": "closed", "reset": "reset", "never": "timeout:total"}[then]
    assert not outcome.accepted
    assert "begun with status 200" in (outcome.detail or "")


CHUNKS = {
    "no size": b"\r\nok\r\n0\r\n\r\n",
    "a word for a size": b"zz\r\nok\r\n0\r\n\r\n",
    "a negative size": b"-2\r\nok\r\n0\r\n\r\n",
    "a size with 0x": b"0x2\r\nok\r\n0\r\n\r\n",
    "a size beyond 64 bits": b"1" + b"0" * 16 + b"\r\nok\r\n",
    "a size of a hundred digits": b"f" * 100 + b"\r\nok\r\n",
    "more data than the size": b"1\r\nok\r\n0\r\n\r\n",
    "less data than the size": b"4\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    "no line break after the data": b"2\r\nok0\r\n\r\n",
    "a bare line feed after the size": b"2\nok\r\n0\r\n\r\n",
    "a size and nothing of it": b"2\r\n",
}


@pytest.mark.parametrize("name", CHUNKS)
def test_chunks_that_are_none(run, name):
    outcome = run(post_once(answers(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS[name])))
    assert outcome.kind == ("closed" if name == "a size and nothing of it" else "protocol")
    assert not outcome.accepted


@pytest.mark.parametrize("encoding", [b"xchunked", b"chunked, gzip", b"gzip", b"identity"])
def test_a_body_that_is_not_chunked_at_last_ends_with_the_connection(run, encoding):
    """Not with what may look like a chunk of nothing (RFC 9112, 6.3)."""
    data = HEAD + b"Transfer-Encoding: " + encoding + b"\r\n\r\n0\r\n\r\n"
    assert run(post_once(answers(data))).kind == "ok"
    assert run(post_once(answers(data, then="never"), total=1)).kind == "timeout:total"


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
@pytest.mark.parametrize("length", [b"", b"Content-Length: 2\r\n"])
def test_a_body_where_none_may_be_is_not_the_next_answer(run, status, length):
    async def scenario():
        sender = Sender(DEV)
        script = answers(b"HTTP/1.1 " + status + b"\r\n" + length + b"\r\nno", then="again")
        async with Subscriber(script) as subscriber:
            for _ in range(3):
                outcome = await sender.post(subscriber.target(), HEADERS, b"")
                assert (outcome.status, outcome.detail) == (int(status[:3]), None)
            await sender.close()
            assert subscriber.accepts == 3

    run(scenario())


def test_a_whole_answer_as_a_forbidden_body_is_not_the_next_answer(run):
    """204 with a body that reads as `200 OK`: the request after it would be taken for accepted."""

    async def script(peer: Peer) -> None:
        while True:
            _, body = await peer.request()
            if body == b"first":
                await peer.send(b"HTTP/1.1 204 No Content\r\nContent-Length: 40\r\n\r\n" + OK)
            else:
                await peer.send(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")

    async def scenario():
        sender = Sender(DEV)
        async with Subscriber(script) as subscriber:
            kinds = [
                (await sender.post(subscriber.target(), HEADERS, body)).kind for body in (b"first", b"second")
            ]
            await sender.close()
            assert kinds == ["ok", "status:500"]

    run(scenario())


# --- answers that nobody asked for ------------------------------------------------------------


class Straggler:
    """A subscriber in a thread of its own: answers a request, and a moment later says more.

    `said` is set when that is in our kernel; the sender's loop may be busy and not have read it.
    """

    def __init__(self, more: bytes | None, tls: ssl.SSLContext | None = None) -> None:
        self.answered = threading.Event()
        self.go = threading.Event()
        self.said = threading.Event()
        self.connections = 0
        self.bodies: list[bytes] = []
        self._more = more
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(60)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with contextlib.suppress(OSError):
                if self._tls:
                    connection = self._tls.wrap_socket(connection, server_side=True)
                with connection:
                    self._talk(connection)

    def _talk(self, connection: socket.socket) -> None:
        connection.settimeout(60)
        self._request(connection)
        connection.sendall(OK if self.connections == 1 else b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
        if self.connections == 1:
            self.answered.set()
            self.go.wait(60)
            if self._more is None:
                connection.shutdown(socket.SHUT_WR)
            else:
                connection.sendall(self._more)
            self.said.set()
        connection.recv(1)

    def _request(self, connection: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += connection.recv(65536)
        self.bodies.append(data.partition(b"\r\n\r\n")[2])


@pytest.mark.parametrize(
    "more", [OK, b"H", b"\r\n", None], ids=["an answer", "a byte", "a line break", "the end"]
)
@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_what_came_before_the_request_is_not_its_answer(run, authority, more, tls):
    """Also when the loop has not had a moment to read it: the connection is looked at before it is used."""
    straggler = Straggler(more, authority.server("hooks.example") if tls else None)

    async def scenario():
        sender = Sender(DEV, resolver=FakeResolver(["127.0.0.1"]), ssl_context=authority.client())
        async with Subscriber(AGAIN, authority.server("x") if tls else None) as only_for_its_target:
            only_for_its_target.port = straggler.port
            target = only_for_its_target.target(host="hooks.example")
            first = await sender.post(target, HEADERS, b"1")
            # From here to the next request the loop is not given back.
            straggler.go.set()
            assert straggler.said.wait(50)
            second = await sender.post(target, HEADERS, b"2")
            await sender.close()
            return first, second

    try:
        first, second = run(scenario())
    finally:
        straggler.close()
    assert (first.kind, second.kind) == ("ok", "status:500")
    assert straggler.connections == 2
    assert straggler.bodies == [b"1", b"2"]  # and the second was sent once


# --- an end at every point --------------------------------------------------------------------

ENDS = {
    "at once": 0,
    "in the head of the request": 10,
    "in its body": 4000,
}


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("name", ENDS)
@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_an_end_while_the_request_is_read(run, authority, name, end, tls):
    async def script(peer: Peer) -> None:
        await peer.reader.readexactly(ENDS[name])
        if end == "reset":
            peer.reset()

    async def scenario():
        sender = Sender(DEV, resolver=FakeResolver(["127.0.0.1"]), ssl_context=authority.client())
        async with Subscriber(script, authority.server("hooks.example") if tls else None) as subscriber:
            target = subscriber.target(host="hooks.example")
            outcome = await sender.post(target, HEADERS, b"x" * 1_000_000)
            await sender.close()
            assert not sender._pool._open
            return outcome

    outcome = run(scenario())
    # A close with data unread is a reset to the other side.
    assert outcome.kind in ("closed", "reset")
    assert outcome.status is None
    assert outcome.detail


HANDSHAKES = {
    "nothing": b"",
    "half a record": b"\x16\x03\x03\x00\x7a\x02\x00\x00",
    "an alert": b"\x15\x03\x03\x00\x02\x02\x28",
    "a record of nonsense": b"\x16\x03\x03\x00\x04\xff\xff\xff\xff",
    "a record too long": b"\x16\x03\x03\xff\xff" + b"x" * 200,
    "http": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "an answer": OK,
}


@pytest.mark.parametrize("then", ["close", "reset", "never"])
@pytest.mark.parametrize("name", HANDSHAKES)
def test_an_end_in_the_tls_handshake(run, name, then):
    async def script(peer: Peer) -> None:
        await peer.reader.read(10)
        await peer.send(HANDSHAKES[name])
        await asyncio.sleep(0.01)
        if then == "reset":
            peer.reset()
        if then == "never":
            await peer.never()

    silent = then == "never" and name in ("nothing", "half a record")

    async def scenario():
        sender = Sender(DEV, limits=SenderLimits(tls=0.2 if silent else 50))
        async with Subscriber(script) as subscriber:
            target = subscriber.target()
            outcome = await sender.post(
                type(target)("https", target.host, target.port, target.path), HEADERS, b"{}"
            )
            await sender.close()
            return outcome

    outcome = run(scenario())
    assert (outcome.kind, outcome.status) == ("timeout:tls" if silent else "tls", None)
    assert not outcome.accepted


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        HEAD,
        HEAD + b"Content-Length: 10\r\n\r\n",
        HEAD + b"Content-Length: 10\r\n\r\nok",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nok",
    ],
    ids=["nothing", "half a head", "a head", "half a body", "half a chunk"],
)
def test_a_tls_connection_that_ends_in_the_answer(run, authority, answer):
    async def scenario():
        sender = Sender(DEV, resolver=FakeResolver(["127.0.0.1"]), ssl_context=authority.client())
        async with Subscriber(answers(answer), authority.server("hooks.example")) as subscriber:
            outcome = await sender.post(subscriber.target(host="hooks.example"), HEADERS, b"{}")
            await sender.close()
            return outcome

    assert run(scenario()).kind == "closed"


def test_a_body_without_a_length_that_tls_cut_off_is_still_an_answer(run, authority):
    """The status counts, and it is whole. Nothing is made of the body."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + b"\r\nhalf of")
        await asyncio.sleep(0.02)
        sock = peer.writer.get_extra_info("socket")
        sock.shutdown(socket.SHUT_WR)  # the end without TLS's goodbye
        await peer.never()

    async def scenario():
        sender = Sender(
            DEV,
            limits=SenderLimits(total=50),
            resolver=FakeResolver(["127.0.0.1"]),
            ssl_context=authority.client(),
        )
        async with Subscriber(script, authority.server("hooks.example")) as subscriber:
            outcome = await sender.post(subscriber.target(host="hooks.example"), HEADERS, b"{}")
            await sender.close()
            return outcome

    outcome = run(scenario())
    assert (outcome.kind, outcome.detail) == ("ok", "half of")
