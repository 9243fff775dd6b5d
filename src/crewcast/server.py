"""The composition root: one node with the parts of its roles, and the only real clock.

Start: the store (a data folder is held alone, a database is shared), the socket, HTTP; CrewAI loads meanwhile in its
host. Stop: no new kickoffs, running crews may finish, attempts in flight end, then everything is let go.
"""

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from crewcast.api.app import create_app
from crewcast.clock import Clock, RealClock, StoreClock
from crewcast.config import Settings, token_of
from crewcast.core.errors import UsageError
from crewcast.core.keyring import KeyRing
from crewcast.core.node import Role
from crewcast.crew.served import make_private
from crewcast.keys import unlock
from crewcast.listening import allow_sockets, http_server, listen, url_of
from crewcast.parts import Ground, Parts, Projects
from crewcast.store.opening import open_store
from crewcast.store.protocol import Store

log = logging.getLogger("crewcast")

Announce = Callable[[str | None, str | None], None]  # url and token, of a node that answers HTTP


async def serve(settings: Settings, projects: Projects, announce: Announce) -> None:
    """Runs a node until SIGTERM or SIGINT; a second signal cuts the drain short.

    Raises UsageError or StoreError for what must be mended before it can start.
    """
    token = _token(settings)
    stop = _Stop()
    async with contextlib.AsyncExitStack() as stack:
        if settings.database_url is not None:
            await asyncio.to_thread(_make_folder, settings.data_dir)
        store = await open_store(settings.data_dir, settings.database_url)
        stack.push_async_callback(store.close)
        await asyncio.to_thread(_keep_out_of_git, settings.data_dir)
        clock = await _clock(settings, store)
        master = await unlock(settings, store)
        keys = KeyRing(master, await store.rotations(), asymmetric="v1a" in settings.signatures)
        sock = None
        if Role.API in settings.roles:
            sock = listen(settings.host, settings.port)
            stack.callback(sock.close)
        url = None if sock is None else url_of(sock)
        ground = Ground(settings, store, clock, master, keys, url, _public_url(settings, url))
        stub_llm = None
        if settings.values.get("stub_llm") and ground.has(Role.WORKER):
            stub_llm = await stack.enter_async_context(_stub_llm(settings))
        parts = Parts(ground, projects, stub_llm, token)
        stack.push_async_callback(parts.close)
        await parts.recover()
        serving = http = None
        if sock is not None and parts.context is not None:
            http = http_server(create_app(parts.context))
            serving = asyncio.create_task(http.serve([sock]), name="http")
        announce(ground.url, token)
        parts.start()
        await stop.wait_for(*filter(None, [serving]), *parts.tasks)
        log.info("stopping: nothing new is taken; running crews may take %g s", settings.drain)
        await parts.drain(stop.urgent)
        if http is not None and serving is not None:
            http.should_exit = True
            await serving


def _token(settings: Settings) -> str | None:
    """What callers need to have; None where nobody calls.

    Raises UsageError if there has to be one.
    """
    if Role.API not in settings.roles:
        return None
    token = token_of(settings)
    if token is None and settings.command == "serve":
        raise UsageError("a token is required: set CREWCAST_TOKEN, token_file in crewcast.toml, or --token")
    return token or secrets.token_urlsafe(24)


async def _clock(settings: Settings, store: Store) -> Clock:
    """Of nodes that share a database, its clock counts, and not that of each machine."""
    if settings.database_url is None:
        return RealClock()
    clock = StoreClock(store.time)
    await clock.synchronise()
    return clock


def _make_folder(data: Path) -> None:
    """For logs, what runs store while they are at work, and the key unless it is named. Raises UsageError."""
    try:
        make_private(data)
    except OSError as e:
        raise UsageError(f"{data} cannot be used as the data folder: {e.strerror or e}") from e


def _keep_out_of_git(data: Path) -> None:
    """The folder has keys and payloads in it, and on a laptop it lies in the project."""
    file = data / ".gitignore"
    if not file.exists():
        file.write_text("*\n", "utf-8")


class _Stop:
    """SIGTERM and SIGINT as an event; the second one is `urgent`."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.urgent = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)

    def _on_signal(self) -> None:
        (self.urgent if self.asked.is_set() else self.asked).set()

    async def wait_for(self, *parts: asyncio.Task[None]) -> None:
        """Until a signal. A part that ends before is a defect and ends the server."""
        waiter = asyncio.create_task(self.asked.wait())
        done, _ = await asyncio.wait({waiter, *parts}, return_when=asyncio.FIRST_COMPLETED)
        waiter.cancel()
        for part in done - {waiter}:
            part.result()
            raise RuntimeError(f"{part.get_name()} ended by itself")


def _public_url(settings: Settings, listens_at: str | None) -> str | None:
    """Where people reach the server. A laptop's own browser reaches what `dev` listens on; never the Host header."""
    if settings.public_url is not None or settings.command != "dev":
        return settings.public_url  # type: ignore[no-any-return]
    return listens_at


@contextlib.asynccontextmanager
async def _stub_llm(settings: Settings) -> AsyncIterator[str]:
    """The offline LLM on a free loopback port; its base URL."""
    from crewcast import stub_llm

    sock = listen("127.0.0.1", 0)
    http = http_server(stub_llm.create_app(settings.stub_delay))
    serving = asyncio.create_task(http.serve([sock]))
    try:
        yield f"{url_of(sock)}/v1"
    finally:
        http.should_exit = True
        await serving


def run(settings: Settings, projects: Projects, announce: Announce) -> None:
    """`serve` in an event loop of its own: uvloop where it exists."""
    allow_sockets()
    threading.excepthook = _end_loudly
    import uvloop

    uvloop.run(serve(settings, projects, announce))


def _end_loudly(args: threading.ExceptHookArgs) -> None:
    """A thread of ours that dies must not leave a server that looks alive."""
    log.critical("thread %s died", args.thread and args.thread.name, exc_info=args.exc_value)
    os._exit(70)
