"""A child as the server holds it."""

import asyncio
import socket
import sys

from crewcast.crew.host import Child


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
