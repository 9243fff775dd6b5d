"""Each event handled once: by threads, by processes, over a crash, and again after a failure."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading

import pytest

from crewcast.webhooks import InProgress, MemoryDeduper, SQLiteDeduper


class Clock:
    def __init__(self):
        self.now = 1_750_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture(params=["memory", "sqlite"])
def dedupe(request, tmp_path):
    if request.param == "memory":
        yield MemoryDeduper()
    else:
        with contextlib.closing(SQLiteDeduper(tmp_path / "seen.db")) as found:
            yield found


def test_the_first_time_is_new_and_the_next_is_not(dedupe):
    assert not dedupe.seen("e1")
    with dedupe.once("e1") as new:
        assert new
        assert not dedupe.seen("e1")
    with dedupe.once("e1") as new:
        assert not new
    assert dedupe.seen("e1")
    with dedupe.once("e2") as new:
        assert new


def test_what_failed_is_new_again(dedupe):
    with pytest.raises(ZeroDivisionError), dedupe.once("e1"):
        raise ZeroDivisionError
    assert not dedupe.seen("e1")
    with dedupe.once("e1") as new:
        assert new


def test_an_error_about_a_known_event_changes_nothing(dedupe):
    with dedupe.once("e1"):
        pass
    with pytest.raises(ZeroDivisionError), dedupe.once("e1"):
        raise ZeroDivisionError
    assert dedupe.seen("e1")


def test_what_is_at_work_is_said_so(dedupe):
    with dedupe.once("e1"):
        with pytest.raises(InProgress, match="e1"), dedupe.once("e1"):
            pass
        with dedupe.once("e2") as new:
            assert new
    with dedupe.once("e1") as new:
        assert not new


def test_of_many_threads_one_handles_an_event(dedupe):
    handled, barrier = [], threading.Barrier(8)

    def deliver():
        barrier.wait()
        for n in range(20):
            with contextlib.suppress(InProgress), dedupe.once(f"e{n}") as new:
                if new:
                    handled.append(n)

    threads = [threading.Thread(target=deliver) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(handled) == list(range(20))


def test_memory_is_bounded_and_forgets_the_oldest():
    dedupe = MemoryDeduper(size=3)
    for name in ("a", "b", "c", "a", "d"):
        with dedupe.once(name):
            pass
    assert [name for name in "abcd" if dedupe.seen(name)] == ["a", "c", "d"]


# --- the file ---------------------------------------------------------------------------------


def test_a_file_knows_them_after_a_restart_and_for_everybody(tmp_path):
    path = tmp_path / "seen.db"
    with (
        contextlib.closing(SQLiteDeduper(path)) as one,
        contextlib.closing(SQLiteDeduper(str(path))) as other,
    ):
        with one.once("e1"), pytest.raises(InProgress), other.once("e1"):
            pass
        with other.once("e1") as new:
            assert not new
    with contextlib.closing(SQLiteDeduper(path)) as later:
        assert later.seen("e1")


def test_a_file_that_cannot_be_used_is_told_at_once(tmp_path):
    import sqlite3

    with pytest.raises(sqlite3.OperationalError):
        SQLiteDeduper(tmp_path / "nowhere" / "seen.db")


def test_ids_are_kept_as_long_as_is_said_and_go_in_slices(tmp_path):
    clock = Clock()
    with contextlib.closing(SQLiteDeduper(tmp_path / "seen.db", keep=100, clock=clock)) as dedupe:
        for n in range(150):
            with dedupe.once(f"e{n}"):
                pass
        clock.now += 100
        with dedupe.once("e0") as new:
            assert not new, "not yet"
        clock.now += 1
        for name in ("x", "y"):
            with dedupe.once(name):
                pass
        assert not any(dedupe.seen(f"e{n}") for n in range(150))


def test_a_process_that_died_at_work_is_waited_for_and_no_longer(tmp_path):
    clock = Clock()
    with contextlib.closing(SQLiteDeduper(tmp_path / "seen.db", patience=60, clock=clock)) as dedupe:
        assert dedupe._begin("e1"), "and then it dies"
        clock.now += 59.9
        with pytest.raises(InProgress), dedupe.once("e1"):
            pass
        clock.now += 0.1
        with dedupe.once("e1") as new:
            assert new


def test_who_was_given_up_takes_nothing_from_who_took_over(tmp_path):
    clock = Clock()
    path = tmp_path / "seen.db"
    with (
        contextlib.closing(SQLiteDeduper(path, patience=60, clock=clock)) as slow,
        contextlib.closing(SQLiteDeduper(path, patience=60, clock=clock)) as quick,
    ):
        assert slow._begin("e1")
        clock.now += 60
        with quick.once("e1") as new:
            assert new
            slow._give_up("e1")
            with pytest.raises(InProgress), slow.once("e1"):
                pass
    assert SQLiteDeduper(path).seen("e1")


HANDLE = """
import contextlib, sys
from crewcast.webhooks import InProgress, SQLiteDeduper, file
file.PATIENCE = 60  # of four, one may wait long on a slow disk
dedupe = SQLiteDeduper(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for n in range(30):
    with contextlib.suppress(InProgress), dedupe.once(f"e{n}") as new:
        if new:
            print(n, flush=True)
"""


def test_of_many_processes_one_handles_an_event_also_while_the_file_is_new(tmp_path):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", HANDLE, str(tmp_path / "seen.db")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(4)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=60)[0] for process in processes]
    assert sorted(int(n) for text in said for n in text.split()) == list(range(30))


def test_a_kill_in_the_middle_leaves_the_event_to_come_again(tmp_path):
    path = tmp_path / "seen.db"
    code = (
        "import os, sys; from crewcast.webhooks import SQLiteDeduper\n"
        "dedupe = SQLiteDeduper(sys.argv[1])\n"
        "with dedupe.once('done'): pass\n"
        "with dedupe.once('cut'): os.kill(os.getpid(), 9)"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(path)])
    assert ended.returncode == -signal.SIGKILL
    with contextlib.closing(SQLiteDeduper(path, patience=0)) as dedupe:
        assert dedupe.seen("done")
        with dedupe.once("cut") as new:
            assert new


def _in_child(dedupe, inherited, pipe):
    with dedupe.once("child") as new:
        pipe.send((new, dedupe.seen("parent"), dedupe._file._db is inherited))


def test_a_process_that_was_forked_with_it_has_a_connection_of_its_own(tmp_path):
    dedupe = SQLiteDeduper(tmp_path / "seen.db")
    with dedupe.once("parent"):
        pass
    connection = dedupe._file._db
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=_in_child, args=(dedupe, connection, theirs))
    child.start()
    child.join(60)
    assert ours.recv() == (True, True, False)
    assert dedupe.seen("child")
    assert dedupe._file._db is connection
    assert dedupe._file._pid == os.getpid()
    dedupe.close()
