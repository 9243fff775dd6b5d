"""Threads know whom they work for."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context

import pytest

from crewcast.crew.child import threads

CARRIED: ContextVar[str] = ContextVar("carried", default="nobody")
OTHER: ContextVar[str] = ContextVar("other", default="nobody")


@pytest.fixture(autouse=True)
def _inherited(monkeypatch):
    monkeypatch.setattr(threading.Thread, "start", threading.Thread.start)
    monkeypatch.setattr(ThreadPoolExecutor, "submit", ThreadPoolExecutor.submit)
    threads.inherit([CARRIED])


def inside(function):
    """Call it where the variables are set."""

    def call():
        CARRIED.set("me")
        OTHER.set("me")
        return function()

    return copy_context().run(call)


def test_a_thread_has_what_its_starter_has_of_these_variables_alone():
    seen = []

    def work(*names, **more):
        seen.append((CARRIED.get(), OTHER.get(), names, more))

    class Own(threading.Thread):
        def run(self):
            work("own")

    def begin():
        started = [threading.Thread(target=work, args=(1,), kwargs={"n": 2}), Own()]
        for thread in started:
            thread.start()
            thread.join(30)
            assert "run" not in vars(thread)

    inside(begin)
    assert seen == [("me", "nobody", (1,), {"n": 2}), ("me", "nobody", ("own",), {})]


def test_a_pools_thread_has_what_each_giver_of_work_has():
    with ThreadPoolExecutor(1) as pool:
        found = [
            inside(lambda: pool.submit(CARRIED.get).result()),
            pool.submit(CARRIED.get).result(),
            inside(lambda: list(pool.map(lambda _: CARRIED.get(), "a"))),
        ]
    assert found == ["me", "nobody", ["me"]]


def test_a_loops_threads_have_what_the_coroutine_has():
    async def main():
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, CARRIED.get), await asyncio.to_thread(OTHER.get)

    assert inside(lambda: asyncio.run(main())) == ("me", "me")


def test_an_error_of_the_work_is_the_works():
    with ThreadPoolExecutor(1) as pool, pytest.raises(ZeroDivisionError):
        pool.submit(lambda: 1 / 0).result()
