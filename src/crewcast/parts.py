"""The parts of a node, those of its roles, and how they know each other."""

import asyncio
import contextlib
import os
import random
import secrets
import socket
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crewcast import __version__, wiring
from crewcast.api.app import Context
from crewcast.api.auth import Tokens
from crewcast.clock import Clock, StoreClock
from crewcast.config import Settings
from crewcast.core.backoff import HOUR, SECOND
from crewcast.core.keyring import KeyRing
from crewcast.core.node import Node, Role
from crewcast.core.review_link import ReviewLinks
from crewcast.core.signature import hkdf
from crewcast.crew import environment
from crewcast.crew.host import Host
from crewcast.crew.project import Project
from crewcast.crew.served import LoadError, ServedCrew, log_file, storage_folder
from crewcast.crew.worker import Worker
from crewcast.crew_views import Crews, told_of
from crewcast.deadlines import Deadlines
from crewcast.dispatch.dispatcher import Dispatcher
from crewcast.dispatch.sender import Sender
from crewcast.nodes import Directory, Registry
from crewcast.retention import FOREVER, Retention
from crewcast.rotation import RotationFollower
from crewcast.store.protocol import Store
from crewcast.store.sqlite.connection import FILE

Projects = Sequence[tuple[str, Project]]  # each with the argument that named it

LOOK_FOR_EDITS_EVERY = SECOND // 2
STRAYS_EVERY = 1 * HOUR  # logs of runs that another node removed


@dataclass(frozen=True, slots=True)
class Ground:
    """What every part stands on. `url` is where the API listens, `link_base` where people reach it."""

    settings: Settings
    store: Store
    clock: Clock
    master: bytes
    keys: KeyRing
    url: str | None = None
    link_base: str | None = None

    @property
    def links(self) -> ReviewLinks:
        return ReviewLinks(hkdf(self.master, b"crewcast/reviews/v1"), self.link_base)

    @property
    def shared(self) -> bool:
        """Whether there may be other nodes."""
        return self.settings.database_url is not None

    def has(self, role: Role) -> bool:
        return role in self.settings.roles


class Parts:
    """All that a node does beside its HTTP: `start`, then `drain`, then `close`."""

    def __init__(self, ground: Ground, projects: Projects, stub_llm: str | None, token: str | None) -> None:
        settings = ground.settings
        self._ground = ground
        self._draining = False
        self.crew_part = CrewPart(ground, projects, stub_llm) if ground.has(Role.WORKER) else None
        self.delivery = DeliveryPart(ground) if ground.has(Role.DISPATCHER) else None
        crews = {} if self.crew_part is None else self.crew_part.crews
        self._registry = Registry(
            ground.store,
            ground.clock,
            Node(
                # A run that is held tells by its lease who holds it.
                id=secrets.token_hex(16) if self.crew_part is None else self.crew_part.worker.lease_token,
                name=node_name(settings),
                roles=settings.roles,
                version=__version__,
                started_at=ground.clock.now(),
                seen_at=0,
                until=0,
                url=ground.url,
            ),
            settings.seconds("lease"),
            lambda: told_of(crews),
            lambda: self._draining,
            alone=not ground.shared,
        )
        self._directory = (
            Directory(ground.store, ground.clock, self._heard_of_others) if ground.shared else None
        )
        if self.crew_part is not None:
            self.crew_part.loaded = self._registry.changed
        served = Crews(crews, self._directory, lambda: self._draining)
        self.context = None if token is None else self._context(token, served)
        self.tasks: list[asyncio.Task[None]] = []

    def _context(self, token: str, crews: Crews) -> Context:
        """What the API works with."""
        ground, settings, seals = self._ground, self._ground.settings, wiring.Seals(self._ground.master)
        data: Path = settings.data_dir
        return Context(
            store=ground.store,
            clock=ground.clock,
            tokens=Tokens(token),
            keys=ground.keys,
            seal=seals.seal,
            crews=crews,
            has_worker=crews.has_worker,
            shared=ground.shared,
            default_crew=settings.default_crew,
            check_url=wiring.egress_policy(settings).check_url,
            random=os.urandom,
            links=ground.links,
            reseal=seals.resealed,
            paused_status=settings.paused_status,
            max_event_bytes=settings.max_event_bytes,
            log_file=lambda run_id: log_file(data, run_id),
            log_elsewhere=None if self._directory is None else self._directory.holder,
            max_body_bytes=settings.max_body_bytes,
            host_names=frozenset({settings.host.lower()}) if settings.command == "dev" else None,
        )

    async def recover(self) -> None:
        """Before the start. Who holds the store alone goes on with what the last server left behind; among others,
        whatever a lost node had is taken over when its leases have lapsed.
        """
        await self._registry.clear()
        if self._directory is not None:
            await self._directory.look()
            return
        await self._ground.store.void_leases(self._ground.clock.now())
        if self.crew_part is not None:
            await self.crew_part.worker.recover()

    def start(self) -> None:
        ground, settings = self._ground, self._ground.settings
        data: Path = settings.data_dir
        retention = Retention(
            ground.store,
            ground.clock,
            settings.seconds("retention"),
            log_file(data, "").parent,
            storage_folder(data, ""),
            look_again=strays_every(ground),
        )
        self._begin("registry", self._registry.run())
        self._begin("retention", retention.run())
        if self._directory is not None:
            self._begin("directory", self._directory.run())
        if isinstance(ground.clock, StoreClock):
            self._begin("clock", ground.clock.run())
        if self.context is not None or self.delivery is not None:
            self._begin("rotations", RotationFollower(ground.store, ground.clock, ground.keys).run())
        if self.delivery is not None:
            self._begin("dispatcher", self.delivery.dispatcher.run())
        if self.crew_part is not None:
            self._begin("worker", self.crew_part.worker.run())
            self._begin("deadlines", self.crew_part.deadlines.run())
            self.crew_part.load()

    def _begin(self, name: str, part: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.create_task(part, name=name))

    def _heard_of_others(self, directory: Directory) -> None:
        if self.delivery is not None:
            self.delivery.dispatcher.among(directory.dispatchers)

    async def drain(self, urgent: asyncio.Event) -> None:
        """Takes nothing new and finishes what is at work, within the time that it has; `urgent` cuts that short."""
        settings = self._ground.settings
        self._draining = True
        self._registry.changed()
        if self.context is not None:
            self.context.draining = True
        hurry = asyncio.create_task(urgent.wait())
        if self.crew_part is not None:
            worker = self.crew_part.worker
            draining = asyncio.create_task(worker.drain(settings.seconds("drain")))
            await asyncio.wait({draining, hurry}, return_when=asyncio.FIRST_COMPLETED)
            if not draining.done():
                await worker.drain(0)
            await draining
        if self.delivery is not None:
            # Attempts in flight may end, unless somebody is in a hurry; what is cut short is sent again.
            ending = asyncio.create_task(self.delivery.dispatcher.stop(settings.seconds("delivery_timeout")))
            await asyncio.wait({ending, hurry}, return_when=asyncio.FIRST_COMPLETED)
            ending.cancel()
        hurry.cancel()

    async def close(self) -> None:
        background = [] if self.crew_part is None else self.crew_part.background
        for task in [*self.tasks, *background]:
            task.cancel()
        await asyncio.gather(*self.tasks, *background, return_exceptions=True)
        if self.tasks:
            await self._registry.leave()
        if self.crew_part is not None:
            await asyncio.gather(*(host.close() for host in self.crew_part.hosts.values()))
        if self.delivery is not None:
            await self.delivery.sender.close()


class CrewPart:
    """What runs crews: their hosts, the worker, and the deadlines of their reviews."""

    def __init__(self, ground: Ground, projects: Projects, stub_llm: str | None) -> None:
        settings, clock, links = ground.settings, ground.clock, ground.links
        self._dev = settings.command == "dev"
        self._clock = clock
        self.hosts: dict[str, Host] = {}
        self.crews: dict[str, ServedCrew] = {}
        for argument, project in projects:
            python = environment.interpreter(project.root, settings.python)
            host = self.hosts.setdefault(python, Host(python, environment.variables(os.environ, python)))
            host.memory = host.memory or project.kind in ("flow", "declarative-flow")
            crew = ServedCrew(project, host, stub_llm, argument if self._dev else None)
            self.crews[project.name] = crew
        self.worker = Worker(
            ground.store,
            self.crews,
            settings.data_dir,
            clock,
            wiring.worker_limits(settings, list(self.crews)),
            links,
            lambda crew: wiring.review_terms(settings.of_crew(crew)),
        )
        self.deadlines = Deadlines(ground.store, clock, links, settings.max_event_bytes)
        self.loaded: Callable[[], None] | None = None
        self.background: list[asyncio.Task[None]] = []

    def load(self) -> None:
        """Loads every crew before anybody asks, and follows edits in `dev`."""
        self.background = [asyncio.create_task(self._load(crew)) for crew in self.crews.values()]
        if self._dev:
            self.background.append(asyncio.create_task(self._follow_edits()))

    async def _load(self, crew: ServedCrew) -> None:
        with contextlib.suppress(LoadError):  # the crew itself has told
            await crew.describe()
        self._wake()

    async def _follow_edits(self) -> None:
        """What an edit broke or changed is told at once, not when somebody asks."""
        never = asyncio.Event()
        while True:
            await self._clock.wait(never, LOOK_FOR_EDITS_EVERY)
            if any([await crew.refresh() for crew in self.crews.values()]):
                self._wake()

    def _wake(self) -> None:
        self.worker.wake()
        if self.loaded is not None:
            self.loaded()


class DeliveryPart:
    """What delivers: the dispatcher and its sender."""

    def __init__(self, ground: Ground) -> None:
        settings = ground.settings
        self.sender = Sender(
            wiring.egress_policy(settings), limits=wiring.sender_limits(settings), proxy=settings.proxy
        )
        self.dispatcher = Dispatcher(
            ground.store,
            self.sender,
            ground.keys.signer,
            ground.clock,
            random.random,
            policy=wiring.retry_policy(settings),
            limits=wiring.dispatch_limits(settings),
            open_auth=wiring.Seals(ground.master).opened,
            shared=ground.shared,
        )


def strays_every(ground: Ground) -> int | None:
    """How often logs of runs that nobody knows go. Never in a folder that has a database of its own, since they may be
    that one's.
    """
    if not ground.shared:
        return FOREVER
    return None if (ground.settings.data_dir / FILE).exists() else STRAYS_EVERY


def node_name(settings: Settings) -> str:
    return str(settings.node_name or f"{socket.gethostname()}-{os.getpid()}")
