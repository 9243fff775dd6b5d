"""`crewcast migrate`: the schema of a store, and the move from SQLite to PostgreSQL."""

import argparse
import asyncio
import os
import sys
import time
from pathlib import Path

from crewcast import config, keys
from crewcast import setting_values as parse
from crewcast.config import Settings
from crewcast.core.errors import UsageError
from crewcast.store.opening import migrate_store

EVERY = 2.0  # seconds
FILE = "crewcast.db"


def run(args: argparse.Namespace) -> int:
    settings = config.load("migrate", vars(args), os.environ)
    if args.source is None and args.target is None:
        _migrate(settings, dry_run=args.dry_run)
    elif args.dry_run:
        raise UsageError("--dry-run is for the schema: what is copied is copied as a whole, or not at all")
    else:
        _move(_folder(args.source), _database(args.target, settings))
    return 0


def _migrate(settings: Settings, *, dry_run: bool) -> None:
    where, names = asyncio.run(migrate_store(settings.data_dir, settings.database_url, dry_run=dry_run))
    if not names:
        print(f"{where} has the schema of this version: nothing to do")
    elif dry_run:
        print(f"{where} would be given: {', '.join(names)}")
    else:
        print(f"{where} was given: {', '.join(names)}")


def _folder(source: str | None) -> Path:
    """The data folder of `sqlite:DIR`, `sqlite:///DIR`, or of the file in it."""
    if source is None:
        raise UsageError("name the data folder to move from: --from sqlite:DIR")
    scheme, colon, rest = source.partition(":")
    if scheme in ("postgresql", "postgres"):
        raise UsageError(
            "--from: only a data folder is moved. From one PostgreSQL to another use pg_dump and pg_restore; there is no "
            "way back from PostgreSQL to SQLite"
        )
    rest = rest.removeprefix("//")
    if scheme != "sqlite" or not colon or not rest:
        raise UsageError("--from: must be sqlite:DIR, such as sqlite:.crewcast or sqlite:///var/lib/crewcast")
    folder = Path(rest).expanduser()
    return folder.parent if folder.name == FILE else folder


def _database(target: str | None, settings: Settings) -> str:
    if target is None:
        if settings.database_url is None:
            raise UsageError(
                "name the database to move to: --to postgresql://USER:PASSWORD@HOST:PORT/NAME, or CREWCAST_DATABASE_URL"
            )
        return str(settings.database_url)
    if target.startswith("sqlite:"):
        raise UsageError("--to: must be a PostgreSQL database. A data folder is moved by copying it")
    try:
        return parse.database_url(target)
    except ValueError as e:
        raise UsageError(f"--to: {e}") from e


def _move(folder: Path, url: str) -> None:
    from crewcast.store.moving import move

    moved = asyncio.run(move(folder, url, Progress()))
    counts = ", ".join(f"{count} in {name}" for name, count in moved.rows.items() if count)
    print(
        f"everything in {folder} is in {moved.where} now, and was read back: {counts or 'nothing was there'}"
    )
    key = folder / keys.FILE_NAME
    which = (
        f"the master key in {key} (key_file, CREWCAST_KEY)"
        if key.exists()
        else "the same master key (key_file, CREWCAST_KEY)"
    )
    print(
        f"next: start nodes with database_url (CREWCAST_DATABASE_URL), {which} and the same token\n"
        f"keep {folder} until they have worked for a while; do not start a server on it: it would do the same work again\n"
        f"what crews printed is still in {folder / 'logs'}, for the node that has {folder} as its data_dir"
    )


class Progress:
    """A line on stderr every other second."""

    def __init__(self) -> None:
        self._next = time.monotonic() + EVERY

    def __call__(self, doing: str, table: str, done: int, total: int) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + EVERY
            print(f"crewcast: {doing} {table}: {done} of {total}", file=sys.stderr, flush=True)
