"""Of what a hostile subscriber pours out, little is read, less is held, and the little that is kept is harmless."""

import asyncio
import gzip

import pytest

from crewcast.core.outcome import KINDS
from crewcast.dispatch.connection import Connection
from crewcast.dispatch.sender import Sender, SenderLimits
from tests.contract.sender.subscriber import DEV, HEADERS, OK, Peer, Subscriber, answers, post_once

HEAD = b"HTTP/1.1 200 OK\r\n"
BOMB = gzip.compress(bytes(100 * 2**20), mtime=0)
ONE_READ = 256 * 1024  # what the event loops read at most at once


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

    limits = SenderLimits()
    outcome = run(post_once(script))
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
        sender = Sender(DEV, limits=SenderLimits(total=50))
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

        sender = Sender(DEV)
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
