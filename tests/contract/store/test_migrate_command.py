"""`crewcast migrate` as it is typed: what it says, and its exit status."""

import asyncio
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import asyncpg
import pytest

from crewcast.store.postgres import PostgresStore
from crewcast.store.sqlite import SQLiteStore
from crewcast.store.sqlite.connection import FILE, load_migrations
from tests.contract.store.moving_world import fill
from tests.contract.store.world import ALL, running
from tests.support.postgres import Databases

SCHEMA = ", ".join(one.name for one in load_migrations())
NEXT = (
    "next: start nodes with database_url (CREWCAST_DATABASE_URL), {key} (key_file, CREWCAST_KEY) and the same token\n"
    "keep {folder} until they have worked for a while; do not start a server on it: it would do the same work again\n"
    "what crews printed is still in {folder}/logs, for the node that has {folder} as its data_dir\n"
)


def migrate(*arguments: object, cwd: Path | None = None, **environ: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "crewcast", "migrate", *map(str, arguments)]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("CREWCAST_")}
    done = subprocess.run(command, capture_output=True, text=True, env=variables | environ, cwd=cwd)
    return done.returncode, done.stdout, done.stderr


def faults(err: str) -> list[str]:
    """Without the lines that a move that takes long says every other second."""
    return [
        line for line in err.splitlines() if not re.match(r"crewcast: (copying|reading back) \w+: \d", line)
    ]


def shown(url: str) -> str:
    return url.partition("@")[2]


async def drop_schema(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("DROP SCHEMA crewcast CASCADE")
    await connection.close()


def test_a_data_folder_is_made_once_and_a_dry_run_makes_nothing(tmp_path: Path):
    folder = tmp_path / "data"
    assert migrate("--data-dir", folder, "--dry-run") == (
        0,
        f"{folder}/{FILE} would be given: {SCHEMA}\n",
        "",
    )
    assert not folder.exists()
    assert migrate("--data-dir", folder) == (0, f"{folder}/{FILE} was given: {SCHEMA}\n", "")
    nothing = (0, f"{folder}/{FILE} has the schema of this version: nothing to do\n", "")
    assert migrate("--data-dir", folder) == nothing
    assert migrate("--data-dir", folder, "--dry-run") == nothing


def test_without_a_word_it_is_the_folder_that_a_server_would_use(tmp_path: Path):
    assert migrate(cwd=tmp_path) == (0, f".crewcast/{FILE} was given: {SCHEMA}\n", "")
    (tmp_path / "crewcast.toml").write_text('data_dir = "other"\nport = 8080\n')
    assert migrate(cwd=tmp_path) == (0, f"other/{FILE} was given: {SCHEMA}\n", "")


async def test_a_database_is_made_once_and_a_dry_run_makes_nothing(database_url: str):
    await drop_schema(database_url)
    place = f"PostgreSQL at {shown(database_url)}"
    assert migrate("--database-url", database_url, "--dry-run") == (
        0,
        f"{place} would be given: 0001_initial\n",
        "",
    )
    assert migrate(CREWCAST_DATABASE_URL=database_url) == (0, f"{place} was given: 0001_initial\n", "")
    nothing = (0, f"{place} has the schema of this version: nothing to do\n", "")
    assert migrate("--database-url", database_url) == nothing
    assert migrate("--database-url", database_url, "--dry-run") == nothing


async def test_a_newer_file_and_a_held_folder_are_told(folder: Path):
    store = await SQLiteStore.open(folder)
    status, out, err = migrate("--data-dir", folder)
    assert (status, out) == (2, "")
    assert f"another server (process {os.getpid()}) holds {folder}: stop that one" in err
    await store.close()
    db = sqlite3.connect(folder / FILE)
    db.execute("PRAGMA user_version = 99")
    db.close()
    for flags in ((), ("--dry-run",)):
        status, out, err = migrate("--data-dir", folder, *flags)
        assert (status, out) == (2, "")
        assert "was written by a newer Crewcast (schema 99, this one knows" in err


async def test_a_folder_is_moved_and_told_what_comes_next(folder: Path, database_url: str):
    world = await fill(folder)
    status, out, err = migrate("--from", f"sqlite:{folder}", "--to", database_url)
    assert (status, faults(err)) == (0, [])
    first, _, rest = out.partition("\n")
    place = f"PostgreSQL at {shown(database_url)}"
    assert first.startswith(
        f"everything in {folder} is in {place} now, and was read back: {len(world) - 1} in run, "
    )
    assert rest == NEXT.format(folder=folder, key="the same master key")
    store = await PostgresStore.open(database_url)
    assert await store.run(world.completed) is not None
    await store.close()
    again = f"crewcast: {place} is not empty: there are rows in run, kickoff, lane, "
    status, out, err = migrate("--from", f"sqlite:{folder}", "--to", database_url)
    assert (status, out, err.startswith(again)) == (2, "", True)


async def test_a_folder_with_its_key_is_told_of_it_and_the_database_may_be_a_variable(
    folder: Path, database_url: str
):
    await (await SQLiteStore.open(folder)).close()
    (folder / "secret.key").write_text("x")
    place = f"PostgreSQL at {shown(database_url)}"
    status, out, err = migrate("--from", f"sqlite://{folder}/{FILE}", CREWCAST_DATABASE_URL=database_url)
    assert (status, faults(err)) == (0, [])
    said = f"everything in {folder} is in {place} now, and was read back: nothing was there\n"
    assert out == said + NEXT.format(folder=folder, key=f"the master key in {folder}/secret.key")


async def test_a_relative_folder_is_moved(tmp_path: Path, database_url: str):
    await (await SQLiteStore.open(tmp_path / ".crewcast")).close()
    status, out, _ = migrate("--from", "sqlite:.crewcast", "--to", database_url, cwd=tmp_path)
    assert (status, out.partition(" is in ")[0]) == (0, "everything in .crewcast")


async def test_a_server_that_runs_is_to_be_stopped_first(folder: Path, database_url: str):
    store = await SQLiteStore.open(folder)
    found = migrate("--from", f"sqlite:{folder}", "--to", database_url)
    said = f"crewcast: a server is running on {folder}, and would write what is not moved: stop it first\n"
    assert found == (2, "", said)
    await store.close()


# Whoever holds the lock holds a copy up in its middle.
HELD_UP = """
CREATE FUNCTION crewcast.held_up() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_advisory_xact_lock(7); RETURN NEW; END $$;
CREATE TRIGGER held_up BEFORE INSERT ON crewcast.event
    FOR EACH ROW WHEN (NEW.seq = 100000) EXECUTE FUNCTION crewcast.held_up();
"""


async def test_a_move_that_is_stopped_by_hand_leaves_nothing(folder: Path, database_url: str):
    store = await SQLiteStore.open(folder)
    await running(store, ALL)
    await store.close()
    db = sqlite3.connect(folder / FILE)
    db.execute(
        """
        INSERT INTO event (run, seq, channel, type, at, run_attempt, body)
        WITH RECURSIVE n (seq) AS (SELECT 1 UNION ALL SELECT seq + 1 FROM n WHERE seq < 200000)
        SELECT 1, seq, 2, 'step', 0, 1, zeroblob(500) FROM n
        """
    )
    db.commit()
    db.close()
    watching = await asyncpg.connect(database_url)
    await watching.execute(HELD_UP)
    await watching.execute("SELECT pg_advisory_lock(7)")
    command = [
        sys.executable,
        "-m",
        "crewcast",
        "migrate",
        "--from",
        f"sqlite:{folder}",
        "--to",
        database_url,
    ]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A worker of pytest-xdist ignores it, and what it starts would too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    while not await watching.fetch("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, err = await asyncio.to_thread(process.communicate, timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "reading back" not in err  # it has not gone on to the end
    assert await watching.fetch("SELECT 1 FROM crewcast.run UNION ALL SELECT 1 FROM crewcast.event") == []
    await watching.close()  # and with it goes the lock
    status, out, _ = migrate("--from", f"sqlite:{folder}", "--to", database_url)
    assert (status, "200000 in event" in out) == (0, True)


TO = ("--to", "postgresql://127.0.0.1:9/x")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("--from", "postgresql://a/b", *TO),
            "From one PostgreSQL to another use pg_dump and pg_restore; there is no way back",
        ),
        (
            ("--from", "postgresql://a/b", "--to", "sqlite:.crewcast"),
            "there is no way back from PostgreSQL to SQLite",
        ),
        (("--from", "sqlite:.crewcast", "--to", "sqlite:other"), "--to: must be a PostgreSQL database"),
        (("--from", ".crewcast", *TO), "--from: must be sqlite:DIR, such as sqlite:.crewcast"),
        (("--from", "sqlite:", *TO), "--from: must be sqlite:DIR"),
        (("--from", "sqlite:.crewcast"), "name the database to move to: --to postgresql://"),
        (
            ("--from", "sqlite:.crewcast", "--to", "mysql://a/b"),
            "--to: must be postgresql://USER:PASSWORD@HOST",
        ),
        (TO, "name the data folder to move from: --from sqlite:DIR"),
        (("--from", "sqlite:.crewcast", *TO, "--dry-run"), "--dry-run is for the schema"),
        (
            ("--from", "sqlite:.crewcast", *TO),
            f"there is no {FILE} in .crewcast: name the data folder of the server",
        ),
    ],
)
def test_what_cannot_be_moved_is_said_in_a_line(tmp_path: Path, arguments: tuple[str, ...], said: str):
    status, out, err = migrate(*arguments, cwd=tmp_path)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("crewcast: ")
    assert said in err
    assert list(tmp_path.iterdir()) == []


async def test_a_database_that_is_not_there_is_told_without_its_password(
    folder: Path, postgres: Databases, database_url: str
):
    await (await SQLiteStore.open(folder)).close()
    place = shown(database_url)
    wrong = f"postgresql://postgres:hush@{place}_gone"
    for arguments in (("--database-url", wrong), ("--from", f"sqlite:{folder}", "--to", wrong)):
        status, out, err = migrate(*arguments)
        assert (status, out) == (2, "")
        assert f"PostgreSQL at {place}_gone cannot be used" in err
        assert "hush" not in err


def test_how_far_it_is_goes_to_stderr(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    from crewcast.cli import migrating

    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    told = migrating.Progress()
    told("copying", "run", 0, 5)
    now = 102.0
    told("copying", "event", 1000, 5000)
    told("copying", "event", 2000, 5000)
    now = 104.1
    told("reading back", "event", 4000, 5000)
    assert capsys.readouterr().err == (
        "crewcast: copying event: 1000 of 5000\ncrewcast: reading back event: 4000 of 5000\n"
    )
