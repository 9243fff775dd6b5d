"""What SQLite asks of the disk, recorded: every write, truncation, sync and name, of the library that Python has.

`record` puts itself between the engine and its file system layer (the default VFS) in this process, by ctypes:
no build of our own, no privileges. Raises Hidden where Python's SQLite shows no symbols.

`python -m tests.crash.recorded_disk FOLDER TRACE ROUNDS [SYNCHRONOUS]`: a store at work, closed and opened again;
TRACE is then the pickled list of `Op`. SYNCHRONOUS is a setting to take instead of the store's own.
"""

import _sqlite3
import asyncio
import ctypes
import os
import pickle
import stat
import sys
from ctypes import POINTER, Structure, c_char_p, c_int, c_int64, c_void_p, cast
from pathlib import Path
from typing import Any, NamedTuple

from crewcast.store.sqlite import SQLiteStore, connection
from tests.crash.writing_node import take_up, work

RUNS = 4
CHECKPOINT_AT = 40  # pages: many checkpoints in a short record


class Hidden(Exception):
    """This Python's SQLite is linked into it and cannot be reached from outside."""


class Op(NamedTuple):
    """`file` is an inode's number here, since a name may mean one file after the other.

    write (`at`, `data`), truncate (`at` is the new size), sync; create and delete (`name`), folder (all names so
    far are on the disk); told (`data` is what was acknowledged).
    """

    kind: str
    file: int = 0
    at: int = 0
    data: Any = b""
    name: str = ""


# Names are passed on as the pointers that they are: SQLite keeps them, and reads behind their ends. Of a copy that
# is freed it makes files with garbage for a name (`...-shm`) in the current folder.
XOPEN = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, c_void_p)
XDELETE = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, c_int)
XSETCALL = ctypes.CFUNCTYPE(c_int, c_void_p, c_char_p, c_void_p)
XGETCALL = ctypes.CFUNCTYPE(c_void_p, c_void_p, c_char_p)
OPENFOLDER = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p)
XWRITE = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
XTRUNCATE = ctypes.CFUNCTYPE(c_int, c_void_p, c_int64)
XSYNC = ctypes.CFUNCTYPE(c_int, c_void_p, c_int)


class Vfs(Structure):
    """sqlite3_vfs, version 3."""

    _fields_ = (
        ("iVersion", c_int),
        ("szOsFile", c_int),
        ("mxPathname", c_int),
        ("pNext", c_void_p),
        ("zName", c_char_p),
        ("pAppData", c_void_p),
        ("xOpen", c_void_p),
        ("xDelete", c_void_p),
        ("others", c_void_p * 10),  # xAccess to xGetLastError
        ("xCurrentTimeInt64", c_void_p),
        ("xSetSystemCall", c_void_p),
        ("xGetSystemCall", c_void_p),
        ("xNextSystemCall", c_void_p),
    )


class Methods(Structure):
    """sqlite3_io_methods, version 3."""

    _fields_ = (
        ("iVersion", c_int),
        ("xClose", c_void_p),
        ("xRead", c_void_p),
        ("xWrite", c_void_p),
        ("xTruncate", c_void_p),
        ("xSync", c_void_p),
        ("others", c_void_p * 13),  # xFileSize to xUnfetch
    )


class File(Structure):
    _fields_ = (("pMethods", POINTER(Methods)),)


def _text(name: int) -> str:
    return os.fsdecode(ctypes.string_at(name))


def _library() -> ctypes.CDLL:
    for place in (_sqlite3.__file__ if hasattr(_sqlite3, "__file__") else None, None):
        try:
            library = ctypes.CDLL(place)
            library.sqlite3_vfs_find.restype = POINTER(Vfs)
        except (OSError, AttributeError):
            continue
        return library
    raise Hidden


class Recorder:
    """From now on, of every connection of this process. Never undone: for a process of its own."""

    def __init__(self) -> None:
        self.trace: list[Op] = []
        self._files: dict[str, int] = {}  # by name
        self._inodes = 0
        self._open: dict[int, int] = {}  # by the address of SQLite's file object
        self._kept: list[Any] = []  # what C points to
        self._methods: dict[int, Any] = {}
        self._folder_opened = False
        vfs = _library().sqlite3_vfs_find(None).contents
        assert vfs.iVersion >= 3
        assert vfs.zName == b"unix"
        self._wrap_names(vfs)
        self._wrap_os()

    def told(self, run_id: str, seq: int, cursor: int) -> None:
        self.trace.append(Op("told", data=(run_id, seq, cursor)))

    def _create(self, name: str) -> None:
        if name not in self._files:
            self._inodes += 1
            self._files[name] = self._inodes
            self.trace.append(Op("create", self._inodes, name=name))

    def _wrap_os(self) -> None:
        """The store makes its file itself, before SQLite sees it."""
        made, synced = os.open, os.fsync

        def watched_open(path: Any, flags: int, *arguments: Any, **more: Any) -> int:
            handle = made(path, flags, *arguments, **more)
            if flags & os.O_EXCL:
                self._create(os.fspath(path))
            return handle

        def watched_fsync(handle: int) -> None:
            synced(handle)
            if stat.S_ISDIR(os.fstat(handle).st_mode):
                self.trace.append(Op("folder"))

        os.open = watched_open
        os.fsync = watched_fsync  # type: ignore[assignment]

    def _keep(self, function: Any) -> Any:
        self._kept.append(function)
        return cast(function, c_void_p).value

    def _wrap_names(self, vfs: Vfs) -> None:
        opened, deleted = XOPEN(vfs.xOpen), XDELETE(vfs.xDelete)
        folder = OPENFOLDER(XGETCALL(vfs.xGetSystemCall)(ctypes.addressof(vfs), b"openDirectory"))

        def watched_folder(path: Any, handle: Any) -> int:
            self._folder_opened = True
            return int(folder(path, handle))

        def watched_open(this: Any, name: Any, file: Any, flags: Any, out: Any) -> int:
            result = int(opened(this, name, file, flags, out))
            if result == 0 and name is not None:
                self._create(_text(name))
                self._open[file] = self._files[_text(name)]
                self._wrap_file(File.from_address(file))
            return result

        def watched_delete(this: Any, name: Any, sync: Any) -> int:
            if self._files.pop(_text(name), None) is not None:
                self.trace.append(Op("delete", name=_text(name)))
            self._folder_opened = False
            result = int(deleted(this, name, sync))
            self._folder_was_synced()
            return result

        vfs.xOpen = self._keep(XOPEN(watched_open))
        vfs.xDelete = self._keep(XDELETE(watched_delete))
        # SQLite opens a folder only to sync it.
        wrapped = self._keep(OPENFOLDER(watched_folder))
        XSETCALL(vfs.xSetSystemCall)(ctypes.addressof(vfs), b"openDirectory", wrapped)

    def _folder_was_synced(self) -> None:
        if self._folder_opened:
            self.trace.append(Op("folder"))

    def _wrap_file(self, file: File) -> None:
        address = cast(file.pMethods, c_void_p).value
        assert address is not None
        if address not in self._methods:
            self._methods[address] = self._watched(file.pMethods.contents)
        file.pMethods = ctypes.pointer(self._methods[address])

    def _watched(self, methods: Methods) -> Methods:
        write, truncate, sync = XWRITE(methods.xWrite), XTRUNCATE(methods.xTruncate), XSYNC(methods.xSync)

        def watched_write(file: Any, data: Any, size: Any, at: Any) -> int:
            self.trace.append(Op("write", self._open[file], at, ctypes.string_at(data, size)))
            return int(write(file, data, size, at))

        def watched_truncate(file: Any, size: Any) -> int:
            self.trace.append(Op("truncate", self._open[file], size))
            return int(truncate(file, size))

        def watched_sync(file: Any, flags: Any) -> int:
            self._folder_opened = False
            result = int(sync(file, flags))
            self.trace.append(Op("sync", self._open[file]))
            self._folder_was_synced()
            return result

        copy = Methods.from_buffer_copy(methods)
        copy.xWrite = self._keep(XWRITE(watched_write))
        copy.xTruncate = self._keep(XTRUNCATE(watched_truncate))
        copy.xSync = self._keep(XSYNC(watched_sync))
        return copy


async def main(folder: Path, trace: Path, rounds: int, synchronous: str | None) -> None:
    connection.CHECKPOINT_AT = CHECKPOINT_AT
    recorder = Recorder()
    for _ in range(2):
        store = await SQLiteStore.open(folder)
        if synchronous is not None:
            store._writes.connection.execute(f"PRAGMA synchronous = {synchronous}")
        held = await take_up(store, RUNS)
        await asyncio.gather(*(work(store, run, lane, rounds, recorder.told) for run, lane in held))
        await store.close()
    if not any(op.kind == "write" for op in recorder.trace):
        raise Hidden  # the library that was found is not the one at work
    trace.write_bytes(pickle.dumps([tuple(op) for op in recorder.trace]))


if __name__ == "__main__":
    data, record, count, *weaker = sys.argv[1:]
    try:
        asyncio.run(main(Path(data), Path(record), int(count), weaker[0] if weaker else None))
    except Hidden:
        sys.exit(3)
