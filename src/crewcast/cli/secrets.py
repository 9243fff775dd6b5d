"""`crewcast secret ...`: what subscribers verify with, and its rotation."""

import argparse
import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from typing import TypeVar

from crewcast import config, keys
from crewcast.cli.asking import Client
from crewcast.clock import RealClock
from crewcast.config import Settings
from crewcast.contract.webhooks import rfc3339
from crewcast.core import duration, url
from crewcast.core.errors import StoreHeld, UsageError
from crewcast.core.generation import EVERY_ORIGIN, MOST_AT_ONCE, Generation, Rotation, Rotations, signing
from crewcast.core.keyring import KeyRing
from crewcast.store.opening import open_store
from crewcast.store.protocol import Store
from crewcast.store.sqlite import aside

ALL = "all"
T = TypeVar("T")


def run(args: argparse.Namespace) -> int:
    settings = config.load("secret", vars(args), os.environ)
    match args.action:
        case "show":
            _show(settings, _origin(args.origin), public=args.public)
        case "list":
            _list(settings, None if args.origin is None else _origin(args.origin))
        case "rotate":
            _rotate(settings, args)
        case _:
            _replace(settings)
    return 0


def _show(settings: Settings, origin: str, *, public: bool) -> None:
    ring = _ring(settings, _rotations(settings))
    newest = ring.generations(origin)[0].number
    if not public:
        print(ring.secret(origin, newest))
    elif ring.asymmetric:
        print(ring.key_pair(origin, newest).public)
    else:
        raise UsageError("deliveries have no v1a signature: set signatures to v1,v1a")


def _list(settings: Settings, origin: str | None) -> None:
    """What is in force: of one origin, or of all, and of each one that was rotated by itself."""
    found = _rotations(settings)
    ring = _ring(settings, found)
    origins = [EVERY_ORIGIN, *sorted({one.origin for one in found} - {EVERY_ORIGIN})]
    now = RealClock().now()
    rows = [("ORIGIN", "GENERATION", "FROM", "UNTIL", "PUBLIC KEY")]
    for one in [origin] if origin is not None else origins:
        for generation in signing(ring.generations(one), now):
            pair = ring.key_pair(one, generation.number).public if ring.asymmetric and one else ""
            since, until = ("-" if at is None else rfc3339(at) for at in (generation.since, generation.until))
            rows.append((one or ALL, str(generation.number), since, until, pair))
    widths = [max(len(row[n]) for row in rows) for n in range(4)]
    for row in rows:
        print(
            "  ".join(
                [*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]
            ).rstrip()
        )


def _rotate(settings: Settings, args: argparse.Namespace) -> None:
    """Asks a running server, or writes to the data folder of one that is stopped: only one process writes there. A
    database has many writers.
    """
    origin = EVERY_ORIGIN if args.origin == ALL else _origin(args.origin)
    try:
        overlap = duration.parse(args.overlap)
    except ValueError as e:
        raise UsageError(f"--overlap {e}") from e
    aside_of_servers = settings.database_url is not None or args.data_dir is not None
    server = args.url or (None if aside_of_servers else os.environ.get("CREWCAST_URL"))
    if server:
        client = Client(server, args.token or os.environ.get("CREWCAST_TOKEN", ""))
        body = {"origin": origin or ALL, "overlap": overlap // 1_000_000}
        answer = json.loads(client.ask("POST", "/api/v1/secrets/rotate", body))
        newest, *older = answer["generations"]
        _tell(answer["origin"], newest["generation"], older[0]["until"] if older else None)
        return

    async def write(store: Store) -> tuple[int, Rotation | None, list[Rotation]]:
        await keys.unlock(settings, store)
        now = await store.time()
        return now, await store.rotate(origin, now, now + overlap), await store.rotations()

    now, made, after = _written(settings, write)
    if made is None:
        raise UsageError(
            f"{MOST_AT_ONCE} secrets are in force already, and each one signs; wait until one ends, or end all "
            "older ones now with --overlap 0"
        )
    older = [one for one in signing(Rotations(after).generations(origin), now) if one.until is not None]
    _tell(origin or ALL, made.number, _until(older))


def _until(older: list[Generation]) -> str | None:
    return rfc3339(older[0].until) if older and older[0].until is not None else None


def _tell(origin: str, generation: int, until: str | None) -> None:
    which = "every origin" if origin == ALL else origin
    print(f"{which}: generation {generation} signs from now on")
    print("older secrets have ended" if until is None else f"older secrets sign beside it until {until}")


def _replace(settings: Settings) -> None:
    master = keys.master_secret(settings)

    async def write(store: Store) -> bytes:
        now = await store.time()
        # A data folder is held by nobody else now. Who shares a database would go on signing with the old key.
        there = [node.name for node in await store.nodes() if node.alive(now)]
        if there and settings.database_url is not None:
            raise UsageError(f"nodes are at work with the former key: stop them first: {', '.join(there)}")
        return await store.bind_key(keys.fingerprint(master), replace=True)

    noted = _written(settings, write)
    print(f"{keys.place(settings)} now belongs to the master key {noted.hex()}")
    print("every subscriber needs its new secret: crewcast secret show --origin URL")


def _written(settings: Settings, write: Callable[[Store], Awaitable[T]]) -> T:
    async def opened() -> T:
        store = await open_store(settings.data_dir, settings.database_url)
        try:
            return await write(store)
        finally:
            await store.close()

    if settings.database_url is None and not settings.data_dir.is_dir():
        raise UsageError(f"there is no data folder {settings.data_dir}; name the server's with --data-dir")
    try:
        return asyncio.run(opened())
    except StoreHeld as e:
        raise UsageError(
            f"a server is running on {settings.data_dir}: ask it with --url and --token (CREWCAST_URL, "
            "CREWCAST_TOKEN), or stop it first"
        ) from e


def _rotations(settings: Settings) -> list[Rotation]:
    """Every rotation so far, read beside a server that may be running."""
    if settings.database_url is None:
        return aside.rotations(settings.data_dir)
    return _written(settings, lambda store: store.rotations())


def _ring(settings: Settings, rotations: list[Rotation]) -> KeyRing:
    return KeyRing(
        keys.master_secret(settings, make=False), rotations, asymmetric="v1a" in settings.signatures
    )


def _origin(text: str) -> str:
    try:
        return url.parse(text).origin
    except ValueError as e:
        raise UsageError(f"--origin {e}") from e
