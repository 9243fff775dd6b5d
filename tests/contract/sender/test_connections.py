"""How connections are kept, given up and ended."""

import asyncio
import math
import warnings

import pytest

from crewcast.core import url
from crewcast.core.outcome import Outcome
from crewcast.dispatch.sender import Sender, SenderLimits
from tests.contract.sender.subscriber import DEV, HEADERS, OK, FakeResolver, Peer, Subscriber, answers, until

AGAIN = answers(OK, then="again")


def test_one_connection_serves_many_requests(run):
    async def scenario():
        sender = Sender(DEV)
        async with Subscriber(AGAIN) as subscriber:
            for n in range(50):
                outcome = await sender.post(subscriber.target(f"/{n % 3}"), HEADERS, b"%d" % n)
                assert (outcome.kind, outcome.detail) == ("ok", "ok")
            await sender.close()
            assert subscriber.accepts == 1
            assert [body for _, body in subscriber.requests] == [b"%d" % n for n in range(50)]

    run(scenario())


def test_never_two_requests_on_a_connection_at_once(run):
    async def scenario():
        sender = Sender(DEV)
        async with Subscriber(AGAIN) as subscriber:
            for _ in range(5):
                posts = [sender.post(subscriber.target(), HEADERS, b"%d" % n) for n in range(10)]
                assert all(outcome.accepted for outcome in await asyncio.gather(*posts))
            await sender.close()
            assert subscriber.accepts == 10

    run(scenario())


def test_the_last_connection_used_is_the_first_used_again(run):
    async def scenario():
        by: dict[bytes, int] = {}
        go = {body: asyncio.Event() for body in (b"first", b"second", b"third")}

        async def script(peer: Peer) -> None:
            while True:
                _, body = await peer.request()
                by[body] = peer.number
                if body in go:
                    await go[body].wait()
                await peer.send(OK)

        sender = Sender(DEV)
        async with Subscriber(script) as subscriber:
            posts = {
                body: asyncio.ensure_future(sender.post(subscriber.target(), HEADERS, body)) for body in go
            }
            await until(lambda: len(by) == 3)
            for body in (b"third", b"first", b"second"):
                go[body].set()
                await posts[body]
            for n in range(5):
                await sender.post(subscriber.target(), HEADERS, b"%d" % n)
            await sender.close()
            assert [by[b"%d" % n] for n in range(5)] == [by[b"second"]] * 5

    run(scenario())


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        OK + b"HT",
        OK + OK,
    ],
    ids=["connection close", "HTTP/1.0", "a byte too much", "two answers"],
)
def test_not_reused(run, answer):
    async def scenario():
        sender = Sender(DEV)
        async with Subscriber(answers(answer, then="again")) as subscriber:
            for _ in range(2):
                assert (await sender.post(subscriber.target(), HEADERS, b"")).accepted
            await sender.close()
            assert subscriber.accepts == 2

    run(scenario())


def test_not_reused_while_the_last_request_is_still_being_written(run):
    async def early(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(OK)
        await peer.never()

    async def scenario():
        sender = Sender(DEV, limits=SenderLimits(total=50))
        async with Subscriber(early) as subscriber:
            for _ in range(2):
                assert (await sender.post(subscriber.target(), HEADERS, b"x" * 32 * 2**20)).accepted
            await sender.close()
            assert subscriber.accepts == 2

    run(scenario())


def test_an_unasked_answer_never_answers_the_next_request(run):
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await asyncio.sleep(0.03)
        await peer.send(OK)
        await peer.request()
        await peer.send(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")

    async def scenario():
        sender = Sender(DEV)
        async with Subscriber(script) as subscriber:
            assert (await sender.post(subscriber.target(), HEADERS, b"1")).accepted
            await until(lambda: not sender._pool._idle)
            assert (await sender.post(subscriber.target(), HEADERS, b"2")).accepted
            await sender.close()
            assert subscriber.accepts == 2

    run(scenario())


@pytest.mark.parametrize("end", ["close", "reset"])
def test_a_kept_connection_that_was_closed_is_tried_again_once(run, end):
    async def script(peer: Peer) -> None:
        if peer.number == 1:
            await peer.request()
            await peer.send(OK)
            await peer.request()  # and then no answer
            if end == "reset":
                peer.reset()
        else:
            await AGAIN(peer)

    async def scenario():
        sender = Sender(DEV)
        async with Subscriber(script) as subscriber:
            bodies = []
            for body in (b"1", b"2", b"3"):
                assert (await sender.post(subscriber.target(), HEADERS, body)).accepted
            await sender.close()
            bodies = [body for _, body in subscriber.requests]
            assert subscriber.accepts == 2
            assert bodies == [b"1", b"2", b"2", b"3"]

    run(scenario())


def test_only_once(run):
    async def script(peer: Peer) -> None:
        await peer.request()
        if peer.number == 1:
            await peer.send(OK)
            await peer.request()

    async def scenario():
        sender = Sender(DEV)
        async with Subscriber(script) as subscriber:
            assert (await sender.post(subscriber.target(), HEADERS, b"1")).accepted
            assert (await sender.post(subscriber.target(), HEADERS, b"2")).kind == "closed"
            await sender.close()
            assert [body for _, body in subscriber.requests] == [b"1", b"2", b"2"]

    run(scenario())


def test_not_when_a_byte_of_the_answer_was_read(run):
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.request()
        await peer.send(b"H")

    async def scenario():
        sender = Sender(DEV)
        async with Subscriber(script) as subscriber:
            assert (await sender.post(subscriber.target(), HEADERS, b"1")).accepted
            assert (await sender.post(subscriber.target(), HEADERS, b"2")).kind == "closed"
            await sender.close()
            assert subscriber.accepts == 1

    run(scenario())


def test_a_connection_closed_while_idle_is_not_taken(run):
    async def scenario():
        sender = Sender(DEV)
        async with Subscriber(answers(OK)) as subscriber:  # closes after each answer, without saying so
            for _ in range(3):
                assert (await sender.post(subscriber.target(), HEADERS, b"")).accepted
                await until(lambda: not sender._pool._idle)
            await sender.close()
            assert (subscriber.accepts, len(subscriber.requests)) == (3, 3)

    run(scenario())


def test_idle_connections_end_in_time_and_the_timer_with_them(run, monkeypatch):
    async def scenario():
        sender = Sender(DEV, limits=SenderLimits(idle=0.1))
        kept: list[int] = []
        free = sender._pool.free

        def counted(connection, now):
            free(connection, now)
            kept.append(len(sender._pool._idle))

        monkeypatch.setattr(sender._pool, "free", counted)
        async with Subscriber(AGAIN) as subscriber:
            await sender.post(subscriber.target(), HEADERS, b"")
            assert kept == [1]
            await until(lambda: not sender._pool._open)
            assert not sender._pool._idle
            assert sender._pool._timer is None
            assert not sender._shelves["http", "127.0.0.1", subscriber.port]
            await sender.close()

    run(scenario())


def test_idle_connections_are_bounded_per_origin_and_in_all(run):
    async def scenario():
        sender = Sender(DEV, limits=SenderLimits(max_idle=5, max_idle_per_origin=3))
        async with Subscriber(AGAIN) as one, Subscriber(AGAIN) as two:
            for subscriber in (one, two):
                posts = [sender.post(subscriber.target(), HEADERS, b"") for _ in range(8)]
                assert all(outcome.accepted for outcome in await asyncio.gather(*posts))
            shelves = sender._shelves
            # The second origin's took the place of the first one's longest idle.
            assert len(shelves["http", "127.0.0.1", one.port]) == 2
            assert len(shelves["http", "127.0.0.1", two.port]) == 3
            assert len(sender._pool._idle) == 5
            await sender.close()

    run(scenario())


def test_many_urls_are_forgotten_and_work_again(run, monkeypatch):
    monkeypatch.setattr("crewcast.dispatch.sender.MOST_ROUTES", 3)

    async def scenario():
        sender = Sender(DEV)
        async with Subscriber(AGAIN) as subscriber:
            for n in range(20):
                assert (await sender.post(subscriber.target(f"/{n}"), HEADERS, b"")).accepted
                assert len(sender._routes) <= 3
            await sender.close()

    run(scenario())


def test_origins_do_not_share_connections(run):
    async def scenario():
        sender = Sender(DEV, resolver=FakeResolver(["127.0.0.1"]))
        async with Subscriber(AGAIN) as subscriber:
            for host in ("a.example", "b.example", "a.example"):
                assert (await sender.post(subscriber.target(host=host), HEADERS, b"")).accepted
            await sender.close()
            assert subscriber.accepts == 2

    run(scenario())


def test_a_cancelled_post_ends_its_connection(run):
    async def script(peer: Peer) -> None:
        await peer.request()
        if peer.number > 1:
            await peer.send(OK)
        await peer.request()
        await peer.never()

    async def scenario():
        sender = Sender(DEV)
        async with Subscriber(script) as subscriber:
            fresh = asyncio.ensure_future(sender.post(subscriber.target(), HEADERS, b"1"))
            await until(lambda: subscriber.requests)
            fresh.cancel()
            await asyncio.wait([fresh])
            assert fresh.cancelled()
            assert (await sender.post(subscriber.target(), HEADERS, b"2")).accepted
            kept = asyncio.ensure_future(sender.post(subscriber.target(), HEADERS, b"3"))
            await until(lambda: len(subscriber.requests) == 3)
            kept.cancel()
            await asyncio.wait([kept])
            assert kept.cancelled()
            assert not sender._pool._busy
            assert not sender._pool._idle
            await sender.close()
            assert subscriber.accepts == 2

    run(scenario())


def test_a_post_cancelled_as_its_answer_comes_leaves_the_next_request_alone(run, monkeypatch):
    async def scenario():
        sender = Sender(DEV)
        posts: list[asyncio.Task[Outcome]] = []
        free = sender._pool.free

        def cancelled_now(connection, now):
            free(connection, now)
            if len(posts) == 1:
                # It has taken the connection by the time that the first learns that it is cancelled.
                posts.append(asyncio.create_task(sender.post(subscriber.target(), HEADERS, b"2")))
                posts[0].cancel()

        async with Subscriber(AGAIN) as subscriber:
            await sender.post(subscriber.target(), HEADERS, b"0")
            monkeypatch.setattr(sender._pool, "free", cancelled_now)
            posts.append(asyncio.create_task(sender.post(subscriber.target(), HEADERS, b"1")))
            await until(lambda: len(posts) == 2 and posts[1].done())
            assert posts[0].cancelled()
            assert posts[1].result().accepted
            await sender.close()
            assert subscriber.accepts == 1

    run(scenario())


def test_a_cancelled_dial_leaves_nothing_behind(run):
    async def scenario():
        sender = Sender(DEV, resolver=FakeResolver(None))
        post = asyncio.ensure_future(sender.post(url.parse("http://hooks.example/"), HEADERS, b""))
        await asyncio.sleep(0.02)
        post.cancel()
        await asyncio.wait([post])
        assert post.cancelled()
        assert not sender._dialer._scopes
        await sender.close()

    run(scenario())


def test_close_lets_what_is_in_flight_end_within_the_grace(run):
    async def script(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(0.1)
        await peer.send(OK)

    async def scenario():
        sender = Sender(DEV)
        async with Subscriber(script) as subscriber:
            post = asyncio.ensure_future(sender.post(subscriber.target(), HEADERS, b""))
            await until(lambda: subscriber.requests)
            await sender.close(grace=10)
            assert post.done()
            assert post.result().accepted
            assert (await sender.post(subscriber.target(), HEADERS, b"")).kind == "stopped"
            assert subscriber.accepts == 1

    run(scenario())


def test_close_ends_what_does_not_end(run):
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.never()

    async def scenario():
        sender = Sender(DEV, resolver=FakeResolver(["127.0.0.1"], None))
        async with Subscriber(script) as subscriber:
            posts = [
                asyncio.ensure_future(sender.post(subscriber.target(host=f"{n}.example"), HEADERS, b""))
                for n in "ab"
            ]
            await until(lambda: subscriber.requests)
            await sender.close(grace=0.05)
            assert [post.result().kind for post in posts] == ["stopped", "stopped"]
            assert not sender._pool._open

    run(scenario())


def test_close_twice_and_unused(run):
    async def scenario():
        sender = Sender(DEV)
        await sender.close()
        await sender.close(grace=1)

    run(scenario())


def test_the_proxy_of_the_environment_is_not_used(run, monkeypatch):
    async def scenario():
        async with Subscriber(AGAIN) as proxy, Subscriber(AGAIN) as subscriber:
            for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
                monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
            sender = Sender(DEV)
            assert (await sender.post(subscriber.target(), HEADERS, b"")).accepted
            await sender.close()
            assert proxy.accepts == 0

    run(scenario())


def test_no_cookie_is_kept(run):
    async def scenario():
        sender = Sender(DEV)
        script = answers(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n", then="again")
        async with Subscriber(script) as subscriber:
            for _ in range(2):
                await sender.post(subscriber.target(), HEADERS, b"")
            await sender.close()
            assert all(b"cookie" not in head.lower() for head, _ in subscriber.requests)

    run(scenario())


def test_a_large_body_arrives_whole(run):
    body = bytes(range(256)) * 4096 * 8

    async def scenario():
        sender = Sender(DEV)
        async with Subscriber(AGAIN) as subscriber:
            for _ in range(2):
                assert (await sender.post(subscriber.target(), HEADERS, body)).accepted
            await sender.close()
            assert subscriber.accepts == 1
            assert [sent for _, sent in subscriber.requests] == [body, body]

    run(scenario())


def test_nothing_is_left_for_the_collector(run):
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        test_one_connection_serves_many_requests(run)


def test_the_timer_keeps_the_smallest_wait_to_a_tenth():
    assert SenderLimits().tick == 0.25
    assert SenderLimits(total=0.5).tick == pytest.approx(0.05)
    assert SenderLimits(response=1e-9).tick == 0.005
    assert math.isinf(SenderLimits().response)
