"""Threads know whom they work for."""

import asyncio
import subprocess
import sys
import textwrap
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


def test_a_thread_that_ends_before_it_begins_is_not_waited_for():
    """As one does that finds no memory for its first call. Python prints it, so it has a process of its own."""
    story = """
        import threading
        from crewcast.crew.child import threads

        class Starved(threading.Thread):
            def _bootstrap(self):
                raise MemoryError

        threads.begin_or_raise()
        threads.inherit([])
        for _ in range(3):
            starved = Starved()
            try:
                starved.start()
            except MemoryError as error:
                print(error)
            assert threading.enumerate() == [threading.main_thread()]
            assert not starved.is_alive()
        seen = []
        for n in range(50):
            thread = threading.Thread(target=seen.append, args=(n,))
            thread.start()
            thread.join()
            assert "_bootstrap" not in vars(thread)
        timer = threading.Timer(0.3, seen.append, [50])
        timer.start()
        timer.join()
        assert seen == list(range(51))
        try:
            timer.start()
        except RuntimeError as error:
            print(error)
    """
    told = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(story)], capture_output=True, text=True, timeout=60
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout.splitlines() == [
        *["a thread found no memory to begin with"] * 3,
        "threads can only be started once",
    ]
