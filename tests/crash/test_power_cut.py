"""A power cut at any moment: what was acknowledged is there, and what is there is whole.

A store at work is recorded at the edge of SQLite and the disk (`recorded_disk`). A disk keeps what was synced;
of what was not it may keep everything, nothing, or any part in any order, down to a sector of a write. Such disks
are made for moments of the record, and each is opened as the next server would. `make soak` sets
CREWCAST_SOAK_SECONDS for more of them.
"""

import asyncio
import os
import pickle
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from crewcast.core.errors import StoreError
from tests.crash.recorded_disk import Op
from tests.crash.writing_node import check

ROOT = Path(__file__).parents[2]
SECONDS = float(os.environ.get("CREWCAST_SOAK_SECONDS", "4"))
SECTOR = 512
HIDDEN = 3  # the exit status that says that this Python's SQLite cannot be recorded

Keep = Callable[[Op], Op | None]  # what is left of a write or truncation that was not synced


class Disk:
    """What the record so far has brought to the disk for certain, and what is still on its way."""

    def __init__(self) -> None:
        self.told: dict[str, tuple[int, int]] = {}
        self.unsynced: list[Op] = []
        self._files: dict[int, bytearray] = {}
        self._names: dict[str, int] = {}
        self._unsynced_names: list[Op] = []

    def take(self, op: Op) -> None:
        match op.kind:
            case "told":
                run, seq, cursor = op.data
                self.told[run] = (seq, cursor)
            case "create" | "delete":
                self._unsynced_names.append(op)
            case "folder":
                self._names = self._named(len(self._unsynced_names))
                self._unsynced_names.clear()
            case "sync":
                mine = [one for one in self.unsynced if one.file == op.file]
                self._files[op.file] = _applied(self._files.get(op.file, bytearray()), mine)
                self.unsynced = [one for one in self.unsynced if one.file != op.file]
            case _:
                self.unsynced.append(op)

    def _named(self, count: int) -> dict[str, int]:
        names = dict(self._names)
        for op in self._unsynced_names[:count]:
            if op.kind == "create":
                names[op.name] = op.file
            else:
                names.pop(op.name, None)
        return names

    def left(self, folder: Path, keep: Keep, dice: random.Random | None) -> None:
        """Makes `folder` as a power cut may leave it now: of names some first ones are kept, without `dice` none."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        kept = [one for op in self.unsynced if (one := keep(op)) is not None]
        for name, file in self._named(dice.randint(0, len(self._unsynced_names)) if dice else 0).items():
            mine = [op for op in kept if op.file == file]
            (folder / Path(name).name).write_bytes(_applied(self._files.get(file, bytearray()), mine))


def _applied(content: bytearray, ops: list[Op]) -> bytearray:
    """A copy: what was never written, between what was, is zeros."""
    after = bytearray(content)
    for op in ops:
        end = op.at + (len(op.data) if op.kind == "write" else 0)
        after.extend(bytes(max(0, end - len(after))))
        if op.kind == "truncate":
            del after[op.at :]
        else:
            after[op.at : end] = op.data
    return after


def nothing(_op: Op) -> None:
    return None


def some(dice: random.Random) -> Keep:
    """Each is there, or not, or some sectors of it are."""

    def keep(op: Op) -> Op | None:
        fate = dice.random()
        if fate < 0.4 or (fate > 0.8 and op.kind == "truncate"):
            return None
        if fate <= 0.8:
            return op
        first = dice.randrange(0, len(op.data), SECTOR)
        part = op.data[first : first + SECTOR * dice.randint(1, 1 + len(op.data) // SECTOR)]
        return op._replace(at=op.at + first, data=part)

    return keep


def recorded(folder: Path, *weaker: str) -> list[Op]:
    trace, elsewhere = folder / "trace", folder / "elsewhere"
    elsewhere.mkdir()
    places = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash.recorded_disk", folder / "recorded", trace, "30", *weaker],
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": places},
        capture_output=True,
        text=True,
        timeout=100,
    )
    if done.returncode == HIDDEN:
        pytest.skip(
            "this Python's SQLite shows no symbols; tests/contract/store/test_sqlite.py holds the settings"
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert not [*elsewhere.iterdir()], "SQLite read a name that was freed, and made a file of what was there"
    return [Op(*op) for op in pickle.loads(trace.read_bytes())]


def harm(folder: Path, told: dict[str, tuple[int, int]]) -> str | None:
    """What is wrong with the store in `folder`."""
    try:
        asyncio.run(check(folder, told))
    except (AssertionError, StoreError, sqlite3.Error) as e:
        return repr(e)[:500]
    return None


def cut_before_each_sync(trace: list[Op], folder: Path) -> list[str]:
    """Nothing that was not synced is there: the harm of each cut, at the last moment before the disk knows more.

    Between two syncs such a disk is the same, and the last moment has the most that was acknowledged: all prefixes
    of the record are in these.
    """
    disk, found = Disk(), []
    for number, op in enumerate([*trace, Op("sync")]):
        if op.kind in {"sync", "folder"}:
            disk.left(folder, nothing, None)
            if (wrong := harm(folder, disk.told)) is not None:
                found.append(f"cut before {number}: {wrong}")
        disk.take(op)
    return found


def test_no_power_cut_loses_what_was_acknowledged(tmp_path):
    trace = recorded(tmp_path)
    kinds = [op.kind for op in trace]
    assert kinds.count("told") > 200
    assert kinds.count("truncate") > 5, "there was no checkpoint"
    assert kinds.count("delete") >= 2, "the write-ahead log was not begun anew"
    assert cut_before_each_sync(trace, tmp_path / "left") == []


def test_no_power_cut_that_keeps_parts_harms_the_file(tmp_path):
    dice = random.Random()
    trace = recorded(tmp_path)
    until = time.monotonic() + SECONDS
    cuts = unsynced = 0
    while time.monotonic() < until or unsynced <= 20:
        disk = Disk()
        moments = set(dice.sample(range(len(trace)), 40))
        for number, op in enumerate(trace):
            if number in moments and (time.monotonic() < until or unsynced <= 20):
                seed = dice.getrandbits(64)
                disk.left(tmp_path / "left", some(random.Random(seed)), random.Random(seed))
                assert harm(tmp_path / "left", disk.told) is None, f"cut before {number}, dice {seed}"
                cuts += 1
                unsynced += bool(disk.unsynced)
            disk.take(op)
    print(f"{cuts} cuts, {unsynced} of them with writes on their way")


def test_the_same_cuts_show_what_weaker_settings_lose(tmp_path):
    """Or this file proves nothing: without a sync at each commit acknowledged writes are lost."""
    found = cut_before_each_sync(recorded(tmp_path, "NORMAL"), tmp_path / "left")
    assert found
