"""What a sender makes of every kind of answer."""

import asyncio
import gzip
import random

import pytest

from crewcast.core.backoff import SECOND
from crewcast.dispatch.sender import Sender
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


def _with_length(status: bytes, body: bytes = b"", *more: bytes) -> bytes:
    lines = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *more]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


WHOLE_ANSWERS = {
    "length": ([OK], "ok", 200, "ok"),
    "empty": ([_with_length(b"204 No Content")], "ok", 204, None),
    "no content, no length": ([b"HTTP/1.1 204 No Content\r\n\r\n"], "ok", 204, None),
    "no reason phrase": ([b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n"], "ok", 200, None),
    "in pieces": ([bytes([byte]) for byte in OK], "ok", 200, "ok"),
    "chunked": (
        [HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", b"0\r\nX: y\r\n\r\n"],
        "ok",
        200,
        "ok",
    ),
    "until the end": ([HEAD + b"\r\n", b"all ", b"of it"], "ok", 200, "all of it"),
    "HTTP/1.0": ([b"HTTP/1.0 202 Fine\r\n\r\nok"], "ok", 202, "ok"),
    "connection close": ([_with_length(b"200 OK", b"ok", b"Connection: close")], "ok", 200, "ok"),
    "100 Continue first": ([b"HTTP/1.1 100 Continue\r\n\r\n", OK], "ok", 200, "ok"),
    "103 in one piece": ([b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + OK], "ok", 200, "ok"),
    "too much": ([OK + b"more than was said"], "ok", 200, "ok"),
    "two answers": ([OK + b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"], "ok", 200, "ok"),
    "redirect": (
        [_with_length(b"302 Found", b"", b"Location: http://127.0.0.1:9/")],
        "status:302",
        302,
        None,
    ),
    "not modified": ([b"HTTP/1.1 304 Not Modified\r\n\r\n"], "status:304", 304, None),
    "client error": ([_with_length(b"404 Not Found", b"who?")], "status:404", 404, "who?"),
    "gone": ([_with_length(b"410 Gone")], "status:410", 410, None),
    "server error": ([_with_length(b"500 Oops", b"a\x1bb")], "status:500", 500, "a\ufffdb"),
    "no such status": ([_with_length(b"999 What")], "status:999", 999, None),
    "error until the end": ([b"HTTP/1.1 503 No\r\n\r\n", b"down"], "status:503", 503, "down"),
}


@pytest.mark.parametrize("name", WHOLE_ANSWERS)
def test_whole_answers(run, name):
    parts, kind, status, detail = WHOLE_ANSWERS[name]
    outcome = run(post_once(answers(*parts)))
    assert (outcome.kind, outcome.status, outcome.detail) == (kind, status, detail)
    assert outcome.accepted == (kind == "ok")
    assert outcome.duration > 0


BROKEN_ANSWERS = {
    "nothing": ([b""], "closed", None),
    "half a head": ([HEAD + b"Content-Le"], "closed", None),
    "less than was said": ([HEAD + b"Content-Length: 10\r\n\r\nok"], "closed", "begun with status 200"),
    "no last chunk": (
        [HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"],
        "closed",
        "begun with status 200",
    ),
    "only 100 Continue": ([b"HTTP/1.1 100 Continue\r\n\r\n"], "closed", None),
    "not HTTP": ([b"SSH-2.0-OpenSSH_9.6\r\n"], "protocol", "not valid HTTP"),
    "a TLS alert": ([b"\x15\x03\x01\x00\x02\x02\x16"], "protocol", None),
    "HTTP/2 settings": ([b"\x00\x00\x12\x04\x00\x00\x00\x00\x00"], "protocol", None),
    "HTTP/3.7": ([b"HTTP/3.7 200 OK\r\n\r\n"], "protocol", None),
    "a status of four digits": ([b"HTTP/1.1 2000 OK\r\n\r\n"], "protocol", None),
    "a status below 100": ([b"HTTP/1.1 020 OK\r\nContent-Length: 0\r\n\r\n"], "protocol", None),
    "two lengths": ([HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok"], "protocol", None),
    "length and chunks": (
        [HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n"],
        "protocol",
        None,
    ),
    "a negative length": ([HEAD + b"Content-Length: -1\r\n\r\n"], "protocol", None),
    "a length of 30 digits": ([HEAD + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n"], "protocol", None),
    "a chunk without a size": ([HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n"], "protocol", None),
    "a folded header": ([HEAD + b"A: b\r\n c\r\n\r\n"], "protocol", None),
    "bare line feeds": ([b"HTTP/1.1 200 OK\nContent-Length: 0\n\n"], "protocol", None),
    "another protocol": (
        [b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"],
        "protocol",
        None,
    ),
    "a flood of 1xx": ([b"HTTP/1.1 102 Processing\r\n\r\n" * 9 + OK[:5]], "protocol", "interim"),
    "a request": ([b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"], "protocol", None),
}


@pytest.mark.parametrize("name", BROKEN_ANSWERS)
def test_broken_answers(run, name):
    parts, kind, said = BROKEN_ANSWERS[name]
    outcome = run(post_once(answers(*parts)))
    assert (outcome.kind, outcome.status, outcome.accepted) == (kind, None, False)
    assert outcome.detail is not None
    assert said is None or said in outcome.detail


def test_any_bytes_have_an_outcome(run):
    """Valid answers with bytes changed, cut and added: an outcome each, never an exception."""

    async def scenario() -> set[str]:
        roll = random.Random(7)
        seeds = [b"".join(parts) for parts, *_ in WHOLE_ANSWERS.values()]
        sender = Sender(DEV)
        script: list[bytes] = []

        async def play(peer: Peer) -> None:
            await peer.request()
            await peer.send(script[-1])

        kinds = set()
        async with Subscriber(play) as subscriber:
            for _ in range(400):
                data = bytearray(roll.choice(seeds))
                for _ in range(roll.randrange(1, 6)):
                    at = roll.randrange(len(data))
                    data[at : at + roll.randrange(3)] = roll.randbytes(roll.randrange(3)) or b"\r\n"
                script.append(bytes(data))
                kinds.add((await sender.post(subscriber.target(), HEADERS, b"{}")).kind.split(":")[0])
            await sender.close()
        return kinds

    assert run(scenario()) <= {"ok", "status", "protocol", "closed", "reset"}


def test_a_reset_before_the_answer(run):
    outcome = run(post_once(answers(b"", then="reset")))
    assert (outcome.kind, outcome.status) == ("reset", None)


def test_a_reset_in_the_body(run):
    outcome = run(post_once(answers(HEAD + b"Content-Length: 10\r\n\r\n", then="reset")))
    assert (outcome.kind, outcome.status) == ("reset", None)
    assert "begun with status 200" in (outcome.detail or "")


@pytest.mark.parametrize(
    ("value", "wait"),
    [(b"7", 7 * SECOND), (b"-7", 0), (b"soon", None), (b"Thu, 01 Jan 1970 00:00:09 GMT", 4 * SECOND)],
)
def test_retry_after(run, value, wait):
    async def scenario():
        sender = Sender(DEV, now=lambda: 5 * SECOND)
        script = answers(_with_length(b"429 Slow down", b"\r\nRetry-After: 99\r\n", b"Retry-After: " + value))
        async with Subscriber(script) as subscriber:
            outcome = await sender.post(subscriber.target(), HEADERS, b"")
            await sender.close()
            return outcome

    outcome = run(scenario())
    assert (outcome.kind, outcome.retry_after) == ("status:429", wait)


@pytest.mark.parametrize("status", [b"200 OK", b"500 Oops"])
@pytest.mark.parametrize(
    "framing", [b"", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 99999999999\r\n"]
)
def test_of_an_endless_body_only_the_start_is_read(run, status, framing):
    sent = 0

    async def endless(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(b"HTTP/1.1 " + status + b"\r\n" + framing + b"\r\n")
        piece = b"1000\r\n" + b"y" * 0x1000 + b"\r\n" if b"chunked" in framing else b"y" * 0x1000
        while True:
            await peer.send(piece)
            sent += len(piece)

    outcome = run(post_once(endless))
    assert outcome.status == int(status[:3])
    assert outcome.detail == "y" * 512
    assert sent < 32 * 2**20  # what the sockets hold, which differs by system


@pytest.mark.parametrize(
    "endless",
    [b"X: y\r\n", b"x" * 64, b"X: " + b"y" * 100 + b"\r\n"],
    ids=["many", "a name", "longer ones"],
)
def test_endless_headers(run, endless):
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD)
        while True:
            await peer.send(endless * 50)

    outcome = run(post_once(script))
    assert (outcome.kind, outcome.status) == ("header_too_large", None)


def test_endless_trailers_are_not_read(run):
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n")
        while True:
            await peer.send(b"X: y\r\n" * 100)

    outcome = run(post_once(script))
    assert (outcome.kind, outcome.detail) == ("ok", "ok")


def test_a_gzip_bomb_stays_closed(run):
    bomb = gzip.compress(bytes(64 * 2**20))
    head = b"HTTP/1.1 500 Boom\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    outcome = run(post_once(answers(head + bomb)))
    assert outcome.kind == "status:500"
    assert outcome.detail is not None
    assert outcome.detail.startswith("\ufffd")  # its first bytes as they are


def test_a_redirect_to_a_loopback_service_is_not_followed(run):
    async def scenario():
        async with Subscriber(answers(OK)) as inner:
            location = f"http://127.0.0.1:{inner.port}/".encode()
            for status in (b"301 x", b"302 x", b"303 x", b"307 x", b"308 x"):
                script = answers(_with_length(status, b"", b"Location: " + location))
                outcome = await post_once(script)
                assert (outcome.kind, outcome.accepted) == (f"status:{status[:3].decode()}", False)
            await asyncio.sleep(0.01)
            assert inner.accepts == 0

    run(scenario())


def test_an_answer_before_the_request_is_read(run):
    async def early(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(_with_length(b"413 Too Large", b"too much"))
        await peer.never()

    outcome = run(post_once(early, body=b"x" * 32 * 2**20))
    assert (outcome.kind, outcome.detail) == ("status:413", "too much")


def test_a_subscriber_that_speaks_first_is_cut_off(run):
    async def script(peer: Peer) -> None:
        await peer.send(b"220 mail.example ESMTP\r\n")
        await peer.never()

    outcome = run(post_once(script, total=50))
    assert outcome.kind in ("closed", "protocol")


def test_the_request_as_it_is_on_the_wire(run):
    async def scenario():
        sender = Sender(DEV, resolver=FakeResolver(["127.0.0.1"]))
        async with Subscriber(answers(OK)) as subscriber:
            target = subscriber.target("/a%20b?token=secret", host="hooks.example")
            assert (await sender.post(target, HEADERS, b'{"a": 1}')).accepted
            await sender.close()
            return subscriber.port, subscriber.requests

    port, [(head, body)] = run(scenario())
    assert body == b'{"a": 1}'
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /a%20b?token=secret HTTP/1.1"
    assert lines[1] == f"Host: hooks.example:{port}"
    assert sorted(line.split(":")[0].lower() for line in lines[2:-2]) == [
        "accept",
        "accept-encoding",
        "content-length",
        "content-type",
        "user-agent",
        "webhook-id",
    ]
    assert "Accept-Encoding: identity" in lines
    assert "Content-Length: 8" in lines
    assert "webhook-id: evt_0_1" in lines


@pytest.mark.parametrize("value", [b"a\r\nX: y", b"a\nX: y", b"a\rX: y"])
def test_a_header_cannot_add_another(run, value):
    async def scenario():
        sender = Sender(DEV)
        async with Subscriber(answers(OK)) as subscriber:
            with pytest.raises(ValueError, match="line break"):
                await sender.post(subscriber.target(), [(b"x", value)], b"")
            await sender.close()
            assert subscriber.accepts == 0

    run(scenario())


def test_no_headers_at_all(run):
    async def scenario():
        sender = Sender(DEV)
        async with Subscriber(answers(OK)) as subscriber:
            assert (await sender.post(subscriber.target(), [], b"")).accepted
            await sender.close()

    run(scenario())
