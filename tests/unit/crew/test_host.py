"""A child as the server holds it."""

import asyncio
import socket
import sys

import pytest

from crewcast.crew.host import Child, Host, HostInfo


def test_a_child_that_is_killed_before_its_process_is_known_dies_when_it_is():
    """The host tells a child's process id after it was forked; a server that ends has no time to wait for that."""

    async def story():
        ours, theirs = socket.socketpair()
        child = Child("job-1", ours)
        child.kill()
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", "import time; time.sleep(600)")
        child.born(process.pid)
        assert await asyncio.wait_for(process.wait(), 60) == -9
        child.close()
        theirs.close()

    asyncio.run(story())


def test_a_child_that_nobody_waits_for_any_more_leaves_no_socket(tmp_path, monkeypatch):
    """A worker that ends does not wait until its children are handed over."""

    async def story():
        host = Host(sys.executable, {})
        host._ready = asyncio.get_running_loop().create_future()
        host._ready.set_result(HostInfo("1", "3", 0.0))
        await host._sending.acquire()  # another one is being handed over
        made: list[socket.socket] = []
        pair = socket.socketpair
        monkeypatch.setattr(socket, "socketpair", lambda: (made.extend(pair()), made)[1])
        forking = asyncio.create_task(host.fork({}, tmp_path / "log"))
        while not host._children:
            await asyncio.sleep(0.01)
        forking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await forking
        assert [one.fileno() for one in made] == [-1, -1]
        assert host._children == {}

    asyncio.run(story())
