"""Rotations of secrets, and which master key a store belongs to."""

import asyncio
from pathlib import Path

import pytest

from crewcast.core.errors import StoreUnusable
from crewcast.core.generation import EVERY_ORIGIN, MOST_AT_ONCE, Rotation
from crewcast.store.protocol import Hint, Store
from crewcast.store.sqlite import SQLiteStore, aside
from crewcast.store.sqlite.connection import FILE
from tests.contract.store.world import DAY, NOW, SECOND, Heard

A, B = "https://a.example", "https://b.example:8443"


async def test_a_rotation_is_kept_with_the_next_number(store: Store):
    assert await store.rotations() == []
    first = await store.rotate(A, NOW, NOW + DAY)
    second = await store.rotate(EVERY_ORIGIN, NOW + 1, NOW + 1)
    assert first == Rotation(1, A, NOW, NOW + DAY)
    assert second == Rotation(2, EVERY_ORIGIN, NOW + 1, NOW + 1)
    assert await store.rotations() == [first, second]


async def test_too_many_at_once_are_refused_and_nothing_is_written(store: Store):
    for n in range(1, MOST_AT_ONCE):
        assert await store.rotate(A, NOW + n, NOW + DAY) is not None
    before = await store.rotations()
    assert await store.rotate(A, NOW + 9, NOW + DAY) is None
    assert await store.rotations() == before
    assert await store.rotate(B, NOW + 9, NOW + DAY) is not None


async def test_who_signs_is_told_of_a_rotation_and_not_of_one_that_was_refused(store: Store):
    heard = Heard(store)
    for n in range(1, MOST_AT_ONCE):
        await store.rotate(A, NOW + n, NOW + DAY)
    assert heard.take() == [(Hint.ROTATED, A)] * (MOST_AT_ONCE - 1)
    assert await store.rotate(A, NOW + 9, NOW + DAY) is None
    assert heard.take() == []
    await store.rotate(EVERY_ORIGIN, NOW + 9, NOW + 9)
    assert heard.take() == [(Hint.ROTATED, EVERY_ORIGIN)]


async def test_of_rotations_at_the_same_time_each_has_its_number_and_the_limit_holds(store: Store):
    found = await asyncio.gather(*(store.rotate(A, NOW, NOW + DAY) for _ in range(20)))
    assert sorted(one.number for one in found if one is not None) == list(range(1, MOST_AT_ONCE))
    assert await store.rotations() == sorted((one for one in found if one), key=lambda one: one.number)


async def test_the_first_key_is_noted_and_stays(store: Store):
    assert await store.key_fingerprint() is None
    assert await store.bind_key(b"one") == b"one"
    assert await store.bind_key(b"two") == b"one"
    assert await store.key_fingerprint() == b"one"


async def test_a_key_is_replaced_on_purpose_only(store: Store):
    assert await store.bind_key(b"one", replace=True) == b"one"
    assert await store.bind_key(b"two", replace=True) == b"two"
    assert await store.key_fingerprint() == b"two"


async def test_all_of_it_survives_a_restart(folder: Path):
    store = await SQLiteStore.open(folder)
    made = await store.rotate(A, NOW, NOW + DAY)
    await store.bind_key(b"one")
    await store.close()
    store = await SQLiteStore.open(folder)
    assert await store.rotations() == [made]
    assert await store.key_fingerprint() == b"one"
    again = await store.rotate(A, NOW + SECOND, NOW + DAY)
    assert again is not None
    assert again.number == 2
    await store.close()


# --- beside a server --------------------------------------------------------------------------


async def test_rotations_can_be_read_while_the_folder_is_held_and_afterwards(folder: Path):
    store = await SQLiteStore.open(folder)
    assert aside.rotations(folder) == []
    made = await store.rotate(A, NOW, NOW + DAY)
    assert aside.rotations(folder) == [made]
    await store.close()
    before = sorted(folder.iterdir())
    assert aside.rotations(folder) == [made]
    await (await SQLiteStore.open(folder)).close()
    assert sorted(folder.iterdir()) == before


async def test_a_folder_that_no_server_has_used_has_none(tmp_path: Path):
    assert aside.rotations(tmp_path / "nowhere") == []
    assert not (tmp_path / "nowhere").exists()


async def test_a_file_of_an_older_crewcast_has_none(folder: Path):
    from crewcast.store.sqlite import connection

    folder.mkdir()
    db = connection.connect_writer(folder / connection.FILE)
    connection.migrate(db, folder / connection.FILE, connection.load_migrations()[:1])
    db.close()
    assert aside.rotations(folder) == []


async def test_a_file_that_is_no_database_is_told(folder: Path):
    folder.mkdir()
    (folder / FILE).write_bytes(b"something else entirely, and long enough to have a header" * 99)
    with pytest.raises(StoreUnusable, match="restore a backup"):
        aside.rotations(folder)
