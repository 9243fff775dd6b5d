"""The composition root: one node with all its parts, and the only real clock.

Start: the store (it holds the data folder), the socket, HTTP; CrewAI loads meanwhile in its host.
Stop: no new kickoffs, running crews may finish, attempts in flight end, then everything is let go.
"""

import asyncio
import contextlib
import logging
import math
import os
import random
import secrets
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from crewcast.api.app import Context, CrewView, create_app
from crewcast.api.auth import Tokens
from crewcast.clock import RealClock
from crewcast.config import Settings, token_of
from crewcast.contract.authentication import Authentication
from crewcast.contract.kickoff import CrewInputs
from crewcast.contract.problem import Problem
from crewcast.contract.terms import ReviewTerms
from crewcast.contract.webhooks import auth_headers
from crewcast.core.backoff import SECOND, RetryPolicy
from crewcast.core.errors import UsageError
from crewcast.core.keyring import KeyRing
from crewcast.core.lane import Lane
from crewcast.core.review import Default
from crewcast.core.review_link import ReviewLinks
from crewcast.core.signature import hkdf
from crewcast.crew import environment
from crewcast.crew.host import Host
from crewcast.crew.project import Project
from crewcast.crew.served import Description, LoadError, ServedCrew, log_file, storage_folder
from crewcast.crew.worker import CrewLimits, Worker, WorkerLimits
from crewcast.deadlines import Deadlines
from crewcast.dispatch.dispatcher import Dispatcher, DispatchLimits
from crewcast.dispatch.egress import EgressPolicy
from crewcast.dispatch.sender import Sender, SenderLimits
from crewcast.keys import open_sealed, seal, unlock
from crewcast.listening import allow_sockets, http_server, listen, url_of
from crewcast.retention import Retention
from crewcast.rotation import RotationFollower
from crewcast.store.sqlite import SQLiteStore

log = logging.getLogger("crewcast")

Announce = Callable[[str, str], None]  # url, token
Projects = Sequence[tuple[str, Project]]  # each with the argument that named it

LOOK_FOR_EDITS_EVERY = SECOND // 2


async def serve(settings: Settings, projects: Projects, announce: Announce) -> None:
    """Runs a node until SIGTERM or SIGINT; a second signal cuts the drain short.

    Raises UsageError or StoreError for what must be mended before it can start.
    """
    token = token_of(settings)
    if token is None and settings.command == "serve":
        raise UsageError("a token is required: set CREWCAST_TOKEN, token_file in crewcast.toml, or --token")
    token = token or secrets.token_urlsafe(24)
    stop = _Stop()
    async with contextlib.AsyncExitStack() as stack:
        store = await SQLiteStore.open(settings.data_dir)
        stack.push_async_callback(store.close)
        await asyncio.to_thread(_keep_out_of_git, settings.data_dir)
        master = await unlock(settings, store)
        keys = KeyRing(master, await store.rotations(), asymmetric="v1a" in settings.signatures)
        sock = listen(settings.host, settings.port)
        stack.callback(sock.close)
        stub_llm = (
            await stack.enter_async_context(_stub_llm(settings)) if settings.values.get("stub_llm") else None
        )
        links = ReviewLinks(hkdf(master, b"crewcast/reviews/v1"), _public_url(settings, sock))
        node = _Node(settings, store, master, keys, links, projects, stub_llm, token)
        stack.push_async_callback(node.close)
        await node.recover()
        http = http_server(create_app(node.context))
        serving = asyncio.create_task(http.serve([sock]))
        announce(url_of(sock), token)
        node.start()
        await stop.wait_for(serving, *node.tasks)
        log.info("stopping: no new kickoffs; running crews may take %g s", settings.drain)
        await node.drain(stop)
        http.should_exit = True
        await serving


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


class _Node:
    """The parts of a node and how they know each other."""

    def __init__(
        self,
        settings: Settings,
        store: SQLiteStore,
        master: bytes,
        keys: KeyRing,
        links: ReviewLinks,
        projects: Projects,
        stub_llm: str | None,
        token: str,
    ) -> None:
        clock = self._clock = RealClock()
        dev = settings.command == "dev"
        data: Path = settings.data_dir
        self._settings = settings
        self.hosts: dict[str, Host] = {}
        self.crews: dict[str, ServedCrew] = {}
        for argument, project in projects:
            python = environment.interpreter(project.root, settings.python)
            host = self.hosts.setdefault(python, Host(python, environment.variables(os.environ, python)))
            host.memory = host.memory or project.kind in ("flow", "declarative-flow")
            self.crews[project.name] = ServedCrew(project, host, stub_llm, argument if dev else None)
        self.worker = Worker(
            store,
            self.crews,
            data,
            clock,
            worker_limits(settings, list(self.crews)),
            links,
            lambda crew: review_terms(settings.of_crew(crew)),
        )
        self.deadlines = Deadlines(store, clock, links, settings.max_event_bytes)
        egress = egress_policy(settings)
        self.sender = Sender(egress, limits=sender_limits(settings), proxy=settings.proxy)
        self.dispatcher = Dispatcher(
            store,
            self.sender,
            keys.signer,
            clock,
            random.random,
            policy=RetryPolicy(
                schedule=tuple(int(wait * SECOND) for wait in settings.retry_schedule),
                give_up_after=settings.seconds("give_up_after"),
            ),
            limits=DispatchLimits(
                per_origin=settings.origin_concurrency,
                crew_wait=settings.seconds("crew_wait"),
                rate=settings.origin_rate,
            ),
            open_auth=lambda lane: _opened(master, lane),
        )
        self.retention = Retention(
            store,
            clock,
            settings.seconds("retention"),
            log_file(data, "").parent,
            storage_folder(data, ""),
        )
        self.rotations = RotationFollower(store, clock, keys)
        self.context = Context(
            store=store,
            clock=clock,
            tokens=Tokens(token),
            keys=keys,
            seal=lambda auth, run_id, url: seal(master, auth.encode(), run_id, url),
            crews={name: _view(crew) for name, crew in self.crews.items()},
            default_crew=settings.default_crew,
            check_url=egress.check_url,
            random=os.urandom,
            links=links,
            reseal=lambda lane, run_id: _resealed(master, lane, run_id),
            paused_status=settings.paused_status,
            max_event_bytes=settings.max_event_bytes,
            log_file=lambda run_id: log_file(data, run_id),
            max_body_bytes=settings.max_body_bytes,
            host_names=frozenset({settings.host.lower()}) if dev else None,
        )
        self._store = store
        self.tasks: list[asyncio.Task[None]] = []
        self._background: list[asyncio.Task[None]] = []

    async def recover(self) -> None:
        await self._store.void_leases(RealClock().now())
        await self.worker.recover()

    def start(self) -> None:
        self.tasks = [
            asyncio.create_task(self.worker.run(), name="worker"),
            asyncio.create_task(self.dispatcher.run(), name="dispatcher"),
            asyncio.create_task(self.deadlines.run(), name="deadlines"),
            asyncio.create_task(self.retention.run(), name="retention"),
            asyncio.create_task(self.rotations.run(), name="rotations"),
        ]
        self._background = [asyncio.create_task(self._load(crew)) for crew in self.crews.values()]
        if self._settings.command == "dev":
            self._background.append(asyncio.create_task(self._follow_edits()))

    async def _load(self, crew: ServedCrew) -> None:
        """Loads the crew before anybody asks."""
        with contextlib.suppress(LoadError):  # the crew itself has told
            await crew.describe()
        self.worker.wake()

    async def _follow_edits(self) -> None:
        """What an edit broke or changed is told at once, not when somebody asks."""
        never = asyncio.Event()
        while True:
            await self._clock.wait(never, LOOK_FOR_EDITS_EVERY)
            if any([await crew.refresh() for crew in self.crews.values()]):
                self.worker.wake()

    async def drain(self, stop: _Stop) -> None:
        self.context.draining = True
        draining = asyncio.create_task(self.worker.drain(self._settings.seconds("drain")))
        hurry = asyncio.create_task(stop.urgent.wait())
        await asyncio.wait({draining, hurry}, return_when=asyncio.FIRST_COMPLETED)
        if not draining.done():
            await self.worker.drain(0)
        await draining
        # Attempts in flight may end, unless somebody is in a hurry; what is cut short is sent again.
        ending = asyncio.create_task(self.dispatcher.stop(self._settings.seconds("delivery_timeout")))
        await asyncio.wait({ending, hurry}, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        ending.cancel()

    async def close(self) -> None:
        for task in [*self.tasks, *self._background]:
            task.cancel()
        await asyncio.gather(*self.tasks, *self._background, return_exceptions=True)
        await asyncio.gather(*(host.close() for host in self.hosts.values()))
        await self.sender.close()


def _public_url(settings: Settings, sock: socket.socket) -> str | None:
    """Where people reach the server. A laptop's own browser reaches what `dev` listens on; never the Host header."""
    if settings.public_url is not None or settings.command != "dev":
        return settings.public_url  # type: ignore[no-any-return]
    return url_of(sock)


def worker_limits(settings: Settings, crews: Sequence[str]) -> WorkerLimits:
    return WorkerLimits(
        concurrent_runs=settings.max_runs,
        max_event_bytes=settings.max_event_bytes,
        per_token=settings.max_runs_per_token or None,
        crews={name: _crew_limits(settings.of_crew(name), settings) for name in crews},
        stop_grace=settings.seconds("stop_grace"),
    )


def _crew_limits(own: Settings, all_crews: Settings) -> CrewLimits:
    return CrewLimits(
        attempts=own.max_attempts,
        stall=own.seconds("stall_timeout") or None,
        timeout=own.seconds("run_timeout") or None,
        runs=own.max_runs if own.max_runs < all_crews.max_runs else None,
    )


def review_terms(own: Settings) -> ReviewTerms:
    return ReviewTerms(
        timeout=own.seconds("review_timeout") or None,
        default=Default(own.review_default),
        remind_every=own.seconds("review_reminder") or None,
        pass_feedback=own.pass_feedback,
    )


def egress_policy(settings: Settings) -> EgressPolicy:
    dev = settings.command == "dev"
    return EgressPolicy(
        allow_http=dev,
        allow_loopback=dev,
        allow=settings.allow_networks,
        allow_hosts=settings.allow_hosts,
        deny=settings.deny_networks,
    )


def sender_limits(settings: Settings) -> SenderLimits:
    return SenderLimits(
        total=settings.delivery_timeout,
        resolve=settings.connect_timeout,
        connect=settings.connect_timeout,
        tls=settings.connect_timeout,
        response=settings.response_timeout or math.inf,
    )


def _opened(master: bytes, lane: Lane) -> list[tuple[bytes, bytes]]:
    """The headers of the authentication that is sealed in a lane. Raises SealError."""
    if lane.auth is None:
        return []
    return auth_headers(Authentication.decode(open_sealed(master, lane.auth, lane.run_id, lane.url)))


def _resealed(master: bytes, lane: Lane, run_id: str) -> bytes | None:
    if lane.auth is None:
        return None
    return seal(master, open_sealed(master, lane.auth, lane.run_id, lane.url), run_id, lane.url)


def _view(crew: ServedCrew) -> CrewView:
    async def inputs() -> CrewInputs:
        await crew.refresh()
        try:
            return _inputs(await crew.describe())
        except LoadError as e:
            raise Problem(
                500,
                "Project Not Loadable",
                f"The project cannot be loaded: {e}",
                {"project": crew.project.root, "traceback": e.detail},
            ) from e

    def known() -> CrewInputs | None:
        return None if crew.known is None else _inputs(crew.known)

    def tasks() -> list[str] | None:
        if crew.known is None or crew.known.tasks is None:
            return None
        return [task["task_id"] for task in crew.known.tasks]

    def state() -> str:
        if crew.loading:
            return "loading"
        return "ready" if crew.known is not None else "not loadable"

    return CrewView(
        name=crew.name,
        kind=lambda: crew.project.kind,
        inputs=inputs,
        known=known,
        refresh=crew.refresh,
        tasks=tasks,
        state=state,
        error=lambda: None if crew.load_error is None else str(crew.load_error),
        warnings=lambda: [] if crew.known is None else crew.known.warnings,
    )


def _inputs(found: Description) -> CrewInputs:
    return CrewInputs(
        found.inputs,
        found.required,
        only=found.only,
        derives=found.derives_inputs,
        prompts=found.tasks is not None,
    )


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
