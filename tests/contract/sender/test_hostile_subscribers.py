"""What no honest subscriber does: ends at every point, wrong framing, floods, answers that nobody asked for.

The plain kinds of answers are in test_answers, the waits in test_timeouts, the certificates in test_reach.
"""

import asyncio
import contextlib
import gzip
import socket
import ssl
import threading

import pytest

from crewcast.core.outcome import KINDS
from crewcast.dispatch.connection import Connection
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
BOMB = gzip.compress(bytes(100 * 2**20), mtime=0)
ONE_READ = 256 * 1024  # what the event loops read at most at once


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
    outcome = run(post_once(answers(HEAD + b"Content-Length: 3\r\n\r\nok", then=then), total=0.3))
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
    assert run(post_once(answers(data, then="never"), total=0.3)).kind == "timeout:total"


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
        self._thread.join(10)

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
        connection.settimeout(10)
        self._request(connection)
        connection.sendall(OK if self.connections == 1 else b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
        if self.connections == 1:
            self.answered.set()
            self.go.wait(10)
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
            assert straggler.said.wait(10)
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

    async def scenario():
        sender = Sender(DEV, limits=SenderLimits(tls=0.2))
        async with Subscriber(script) as subscriber:
            target = subscriber.target()
            outcome = await sender.post(
                type(target)("https", target.host, target.port, target.path), HEADERS, b"{}"
            )
            await sender.close()
            return outcome

    outcome = run(scenario())
    silent = then == "never" and name in ("nothing", "half a record")
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
            limits=SenderLimits(total=5),
            resolver=FakeResolver(["127.0.0.1"]),
            ssl_context=authority.client(),
        )
        async with Subscriber(script, authority.server("hooks.example")) as subscriber:
            outcome = await sender.post(subscriber.target(host="hooks.example"), HEADERS, b"{}")
            await sender.close()
            return outcome

    outcome = run(scenario())
    assert (outcome.kind, outcome.detail) == ("ok", "half of")


# --- floods -----------------------------------------------------------------------------------


class _Counter:
    """How many bytes the sender took in, and how many it holds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read = self.held = 0
        received = Connection.data_received

        def counted(connection: Connection, data: bytes) -> None:
            self.read += len(data)
            received(connection, data)
            self.held = max(self.held, len(connection._head) + len(connection._body))

        monkeypatch.setattr(Connection, "data_received", counted)


FLOODS = {
    "a body without an end": (HEAD + b"\r\n", b"y" * 65536, "ok"),
    "a body of an exabyte": (HEAD + b"Content-Length: 1000000000000000000\r\n\r\n", b"y" * 65536, "ok"),
    "large chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b"y" * 65536 + b"\r\n", "ok"),
    "a chunk of an exabyte": (HEAD + b"Transfer-Encoding: chunked\r\n\r\nde0b6b3a7640000\r\n", b"y" * 65536, "ok"),
    "chunks of a byte": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\ny\r\n" * 5000, "ok"),
    "one chunk extension": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5;", b"y" * 65536, "ok"),
    "an error without an end": (b"HTTP/1.1 500 No\r\n\r\n", b"y" * 65536, "status:500"),
    "headers": (HEAD, b"X: y\r\n" * 10000, "header_too_large"),
    "one header": (HEAD + b"X: ", b"y" * 65536, "header_too_large"),
    "one header's name": (HEAD, b"y" * 65536, "header_too_large"),
    "a reason phrase": (b"HTTP/1.1 200 ", b"y" * 65536, "header_too_large"),
    "line breaks before the answer": (b"", b"\r\n" * 30000, "header_too_large"),
    "interim answers": (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 2000, "header_too_large"),
    "an interim answer's headers": (b"HTTP/1.1 103 Early Hints\r\n", b"Link: </y>\r\n" * 5000, "header_too_large"),
    "trailers": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n", b"X: y\r\n" * 10000, "ok"),
    "more answers": (OK, OK * 2000, "ok"),
}  # fmt: skip


@pytest.mark.parametrize("name", FLOODS)
def test_of_a_flood_little_is_read_and_less_is_held(run, name, monkeypatch):
    first, flood, kind = FLOODS[name]
    counter = _Counter(monkeypatch)

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(first)
        while True:
            await peer.send(flood)

    limits = SenderLimits(total=5)
    outcome = run(post_once(script, total=5))
    assert outcome.kind == kind
    assert len(outcome.detail or "") <= 512
    assert counter.read <= limits.max_head + limits.max_response + ONE_READ
    assert counter.held <= limits.max_head + 2 * 4 * 512


def test_an_idle_connection_holds_nothing_of_the_last_answer(run):
    async def scenario():
        sender = Sender(DEV)
        body = b"y" * 200_000
        script = answers(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body, OK[:0], then="again")
        async with Subscriber(script) as subscriber:
            for _ in range(5):
                assert (await sender.post(subscriber.target(), HEADERS, b"")).accepted
                assert all(not one._head and not one._body for one in sender._pool._idle)
            await sender.close()

    run(scenario())


@pytest.mark.parametrize("size", [30_000, 40_000, 200_000])
@pytest.mark.parametrize("pieces", [1, 7])
def test_a_large_head_is_large_however_it_comes(run, size, pieces):
    """Once whole and with its body in one read, it was fine; in pieces, it was not."""
    head = HEAD + b"X: " + b"y" * size + b"\r\nContent-Length: 2\r\n\r\n"
    step = len(head) // pieces + 1
    parts = [head[at : at + step] for at in range(0, len(head), step)]
    outcome = run(post_once(answers(*parts[:-1], parts[-1] + b"ok")))
    assert outcome.kind == ("ok" if size < 32 * 1024 else "header_too_large")


def test_a_head_just_below_the_limit_may_come_with_its_body(run):
    head = HEAD + b"X: " + b"y" * 32_000 + b"\r\nRetry-After: 5\r\nContent-Length: 9000\r\n\r\n"
    outcome = run(post_once(answers((head + b"z" * 9000).replace(b"200 OK", b"503 No"))))
    assert (outcome.kind, outcome.retry_after) == ("status:503", 5_000_000)
    assert outcome.detail == "z" * 512


@pytest.mark.parametrize("status", [b"200 OK", b"500 No"])
@pytest.mark.parametrize("framing", [b"Content-Length: %d\r\n", b"Transfer-Encoding: chunked\r\n", b""])
@pytest.mark.parametrize("encoding", [b"gzip", b"deflate", b"br", b"zstd", b"gzip, gzip"])
def test_nothing_is_decompressed(run, status, framing, encoding, monkeypatch):
    """A hundred megabytes in a hundred kilobytes stay that: of a bomb its first bytes are the excerpt."""
    assert len(BOMB) < 110_000
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BOMB), BOMB) if b"chunked" in framing else BOMB
    framing = framing % len(BOMB) if b"%d" in framing else framing
    head = b"HTTP/1.1 " + status + b"\r\nContent-Encoding: " + encoding + b"\r\n" + framing + b"\r\n"
    counter = _Counter(monkeypatch)
    outcome = run(post_once(answers(head + body)))
    assert outcome.status == int(status[:3])
    assert outcome.detail is not None
    assert outcome.detail.startswith("\ufffd\ufffd\ufffd")  # 1f 8b 08: the bytes of gzip as they are
    assert len(outcome.detail) <= 512
    assert counter.held <= SenderLimits().max_head + 2 * 4 * 512


def test_many_hostile_answers_at_once_hold_little(run):
    """Each of 100 connections with a flood: what Python holds for all of them stays within their limits."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + b"Content-Length: 1000000000\r\n\r\n" + b"y" * 15_000)
        await peer.never()

    async def scenario():
        sender = Sender(DEV, limits=SenderLimits(total=3))
        async with Subscriber(script) as subscriber:
            posts = [
                asyncio.ensure_future(sender.post(subscriber.target(), HEADERS, b"")) for _ in range(100)
            ]
            while len([one for one in sender._pool._busy if one._body]) < 100:
                await asyncio.sleep(0.01)
            held = sum(len(one._head) + len(one._body) for one in sender._pool._busy)
            await sender.close()
            assert {post.result().kind for post in posts} == {"stopped"}
            return held

    assert run(scenario()) <= 100 * (15_100 + 2 * 4 * 512)


# --- what is kept -----------------------------------------------------------------------------

TEXTS = {
    "terminal": b"\x1b]0;title\x07\x1b[2J\x1b[31mred",
    "response splitting": b"a\r\nSet-Cookie: x=y\r\n\r\n<html>",
    "log lines": b"ok\n2026-01-01 ERROR root: all is lost\n",
    "bidi": "abc\u202egnp.exe\u2066x\u2069".encode(),
    "invisible": "a\u200bb\u00adc\ufeffd\U000e0041e".encode(),
    "separators": "a\u2028b\u2029c\u0085d".encode(),
    "surrogates": b"\xed\xa0\x80\xed\xb0\x80",
    "not UTF-8": b"\xff\xfe\xc3(",
    "nul": b"a\x00b",
    "cut in a character": "\U0001f600".encode()[:3],
    "long combinations": "a\u0301".encode() * 2000,
}


@pytest.mark.parametrize("name", TEXTS)
def test_an_excerpt_is_text_that_can_be_shown_and_stored(run, name):
    body = TEXTS[name]
    outcome = run(post_once(answers(b"HTTP/1.1 500 No\r\nContent-Length: %d\r\n\r\n" % len(body) + body)))
    assert outcome.kind == "status:500"
    assert outcome.detail is not None
    assert outcome.detail.isprintable()
    assert 0 < len(outcome.detail) <= 512
    outcome.detail.encode("utf-8")  # no lone surrogates


@pytest.mark.parametrize("value", [b"a\rb", b"a\x00b", b"a\x0bb", b"a\x7fb", b"a\nb: c"])
def test_a_header_with_a_control_character_is_no_header(run, value):
    outcome = run(post_once(answers(b"HTTP/1.1 503 No\r\nX: " + value + b"\r\nRetry-After: 9\r\n\r\n")))
    assert outcome.kind == "protocol"
    assert (outcome.detail or "").isprintable()


def test_what_a_subscriber_says_reaches_no_other_field(run):
    """Reason phrase, headers and body: the excerpt alone has any of it."""
    said = b"HTTP/1.1 500 hunter2\r\nServer: hunter2\r\nRetry-After: hunter2\r\nContent-Length: 0\r\n\r\n"
    outcome = run(post_once(answers(said)))
    assert "hunter2" not in str(outcome)
    broken = run(post_once(answers(b"HTTP/1.1 hunter2\r\n\r\n")))
    assert broken.kind == "protocol"
    assert "hunter2" not in str(broken)


def test_every_outcome_has_a_known_kind(run):
    """Whatever is cut, whenever: one of the kinds that people are told of."""

    async def scenario():
        whole = (
            b"HTTP/1.1 103 Early\r\n\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
        )
        cut = 0

        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(whole[:cut])
            if cut % 3 == 1:
                peer.reset()

        sender = Sender(DEV, limits=SenderLimits(total=5))
        kinds = []
        async with Subscriber(script) as subscriber:
            for cut in range(len(whole) + 1):  # noqa: B007 - the script reads it
                kinds.append((await sender.post(subscriber.target(), HEADERS, b"")).kind)
            await sender.close()
        return kinds

    kinds = run(scenario())
    assert set(kinds) <= set(KINDS)
    assert kinds[-1] == "ok"
    assert "ok" not in kinds[:-1]
