import asyncio
import threading
from ipaddress import ip_address

import pytest

from crewcast.dispatch.resolver import ThreadResolver, getaddrinfo

HERE = [ip_address("127.0.0.1")]


def test_localhost_needs_no_network():
    assert ip_address("127.0.0.1") in getaddrinfo("localhost", 80)


def test_callers_share_a_lookup_that_is_under_way_and_nothing_else():
    async def scenario() -> None:
        asked: list[str] = []
        go = threading.Event()

        def lookup(host, port):
            asked.append(host)
            go.wait(10)
            return HERE

        resolver = ThreadResolver(lookup=lookup)
        waiting = [asyncio.ensure_future(resolver.resolve("a.example", 443)) for _ in range(50)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        go.set()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert results[1:] == [HERE] * 49
        assert asked == ["a.example"]
        await resolver.resolve("a.example", 443)
        assert asked == ["a.example"] * 2  # nothing is cached
        resolver.close()

    asyncio.run(scenario())


def test_lookups_are_bounded_and_a_silent_name_takes_one_thread():
    async def scenario() -> None:
        running: list[str] = []
        most = 0
        never = threading.Event()

        def lookup(host, port):
            nonlocal most
            running.append(host)
            most = max(most, len(running))
            if host == "silent.example":
                never.wait(10)
            running.remove(host)
            return HERE

        resolver = ThreadResolver(threads=2, lookup=lookup)
        silent = [asyncio.ensure_future(resolver.resolve("silent.example", 443)) for _ in range(20)]
        names = [f"n{n}.example" for n in range(20)]
        assert await asyncio.gather(*(resolver.resolve(name, 443) for name in names)) == [HERE] * 20
        assert most <= 2
        never.set()
        await asyncio.gather(*silent)
        resolver.close()

    asyncio.run(scenario())


def test_an_error_is_raised_where_it_is_awaited_and_the_thread_lives_on():
    async def scenario() -> None:
        def lookup(host, port):
            if host == "no.example":
                raise OSError(-2, "Name or service not known")
            return HERE

        resolver = ThreadResolver(threads=1, lookup=lookup)
        with pytest.raises(OSError, match="not known"):
            await resolver.resolve("no.example", 443)
        assert await resolver.resolve("yes.example", 443) == HERE
        resolver.close()

    asyncio.run(scenario())


def test_an_answer_after_the_end_of_the_loop_is_dropped():
    go = threading.Event()
    done = threading.Event()

    def lookup(host, port):
        go.wait(10)
        done.set()
        raise OSError("too late")

    resolver = ThreadResolver(lookup=lookup)

    async def scenario() -> None:
        asked = asyncio.ensure_future(resolver.resolve("a.example", 443))
        await asyncio.sleep(0)
        asked.cancel()
        resolver.close()

    asyncio.run(scenario())
    go.set()
    assert done.wait(10)
    for thread in threading.enumerate():
        if thread.name == "crewcast-resolver":
            thread.join(10)
            assert not thread.is_alive()
