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
            go.wait(60)
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
        counting = threading.Lock()
        most = 0
        never = threading.Event()

        def lookup(host, port):
            nonlocal most
            with counting:
                running.append(host)
                most = max(most, len(running))
            if host == "silent.example":
                never.wait(60)
            with counting:
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


def test_slow_names_get_half_of_the_threads_and_are_forgiven():
    async def scenario() -> None:
        go = threading.Event()
        dead = True
        at_work: list[str] = []
        counting = threading.Lock()
        most = 0

        def slow_ones():
            return sum(name.startswith("slow") for name in at_work)

        def lookup(host, port):
            nonlocal most
            with counting:
                at_work.append(host)
                most = max(most, slow_ones())
            if host.startswith("slow"):
                go.wait(60)
            with counting:
                at_work.remove(host)
            if host.startswith("slow") and dead:
                raise OSError(-3, "Temporary failure in name resolution")
            return HERE

        async def all_slow() -> list[asyncio.Task]:
            waiting = [asyncio.create_task(resolver.resolve(f"slow{n}", 443)) for n in range(12)]
            await asyncio.sleep(0)
            return waiting

        async def the_others() -> None:
            for n in range(20):
                assert await asyncio.wait_for(resolver.resolve(f"n{n}", 443), 30) == HERE

        resolver = ThreadResolver(threads=4, lookup=lookup)
        for lookup_of in await all_slow():
            lookup_of.cancel()  # their time is up
        await asyncio.sleep(0)
        go.set()
        while resolver._shared:
            await asyncio.sleep(0.001)
        assert len(resolver._slow) == 12

        go.clear()
        most = 0
        waiting = await all_slow()
        await the_others()
        while slow_ones() < 2:  # a thread that has one may not have begun it
            await asyncio.sleep(0.001)
        assert most == 2
        dead = False
        go.set()
        assert await asyncio.gather(*waiting) == [HERE] * 12  # each has its turn
        assert most == 2
        assert not resolver._slow

        go.clear()
        waiting = await all_slow()
        while len(at_work) < 4:  # nobody is slow any more
            await asyncio.sleep(0.001)
        go.set()
        await asyncio.gather(*waiting)
        resolver.close()

    asyncio.run(scenario())


def test_few_slow_names_are_remembered(monkeypatch):
    monkeypatch.setattr("crewcast.dispatch.resolver.MOST_SLOW", 3)

    async def scenario() -> None:
        go = threading.Event()

        def lookup(host, port):
            go.wait(60)
            return HERE

        resolver = ThreadResolver(lookup=lookup)
        for n in (1, 2, 3, 1, 4):
            waiting = asyncio.create_task(resolver.resolve(f"n{n}", 443))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
        assert list(resolver._slow) == ["n3", "n1", "n4"]
        go.set()
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
        go.wait(60)
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
    assert done.wait(60)
    for thread in threading.enumerate():
        if thread.name == "crewcast-resolver":
            thread.join(60)
            assert not thread.is_alive()
