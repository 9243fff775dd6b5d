"""The offline LLM on a free loopback port."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from crewcast.stub_llm import create_app


@contextmanager
def offline_llm() -> Iterator[str]:
    """Its base URL, for as long as the block lasts."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        # CrewAI never closes its HTTP clients; kept-alive sockets would be reported in whichever test they die.
        config = uvicorn.Config(
            create_app(), log_level="warning", lifespan="off", headers=[("connection", "close")]
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        server.should_exit = True
        thread.join(timeout=10)
