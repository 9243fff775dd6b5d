"""The file that a subscriber's threads and processes share."""

import contextlib
import sqlite3
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from crewcast.webhooks.file import File

SCHEMA = "CREATE TABLE IF NOT EXISTS one (n INTEGER);"


def count(file: File) -> int:
    with file.transaction() as db:
        ((found,),) = db.execute("SELECT count(*) FROM one").fetchall()
    return int(found)


def test_whoever_is_in_a_transaction_is_alone_there(tmp_path):
    """From its beginning: what was read first is still so when it writes."""
    with contextlib.closing(File(tmp_path / "f.db", SCHEMA)) as file, file.transaction():
        other = sqlite3.connect(tmp_path / "f.db", timeout=0, isolation_level=None)
        with contextlib.closing(other), pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")


def test_an_exception_undoes_what_was_written(tmp_path):
    with contextlib.closing(File(tmp_path / "f.db", SCHEMA)) as file:
        with contextlib.suppress(ZeroDivisionError), file.transaction() as db:
            db.execute("INSERT INTO one VALUES (1)")
            raise ZeroDivisionError
        assert count(file) == 0
        with file.transaction() as db:
            db.execute("INSERT INTO one VALUES (1)")
        assert count(file) == 1


def test_an_exception_that_ended_the_transaction_itself_comes_through(tmp_path):
    with contextlib.closing(File(tmp_path / "f.db", SCHEMA)) as file:
        with contextlib.suppress(ZeroDivisionError), file.transaction() as db:
            db.execute("ROLLBACK")
            raise ZeroDivisionError
        assert count(file) == 0


def test_a_new_file_that_another_has_just_begun_is_waited_for(tmp_path):
    path = tmp_path / "f.db"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    with contextlib.closing(other), ThreadPoolExecutor(1) as pool:
        other.execute("BEGIN IMMEDIATE")
        opening = pool.submit(File, path, SCHEMA)
        wait([opening], timeout=0.3)
        assert not opening.done()
        other.execute("COMMIT")
        with contextlib.closing(opening.result(60)) as file:
            assert count(file) == 0


def test_what_is_closed_opens_again(tmp_path):
    file = File(tmp_path / "f.db", SCHEMA)
    with file.transaction() as db:
        db.execute("INSERT INTO one VALUES (1)")
    file.close()
    file.close()
    assert count(file) == 1
    file.close()


def test_threads_share_one_connection_in_turn():
    with contextlib.closing(File(None, SCHEMA)) as file, ThreadPoolExecutor(1) as pool:
        with file.transaction() as db:
            other = pool.submit(count, file)
            wait([other], timeout=0.3)
            assert not other.done()
            db.execute("INSERT INTO one VALUES (1)")
        assert other.result(60) == 1
