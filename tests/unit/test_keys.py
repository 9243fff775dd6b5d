"""The master key: made once, private, never replaced when it is damaged; and what is sealed with it."""

import asyncio
import base64
import logging
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crewcast import config
from crewcast.core.errors import SealError, UsageError
from crewcast.keys import fingerprint, master_secret, open_sealed, seal, unlock
from crewcast.store.sqlite import SQLiteStore


def settings(folder, **flags):
    return config.load("secret", {"data_dir": str(folder)} | flags, {})


def test_it_is_made_once_and_is_private(tmp_path):
    first = master_secret(settings(tmp_path / "data"))
    assert len(first) == 32
    assert master_secret(settings(tmp_path / "data")) == first
    file = tmp_path / "data" / "secret.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [one.name for one in file.parent.iterdir()] == ["secret.key"]


def test_it_can_live_elsewhere(tmp_path):
    key = bytes(range(32))
    file = tmp_path / "elsewhere"
    file.write_bytes(base64.b64encode(key))
    assert master_secret(settings(tmp_path / "data", key_file=str(file))) == key
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("text", ["", "not base64!", base64.b64encode(b"short").decode(), "é"])
def test_a_damaged_one_is_named_and_kept(tmp_path, text):
    file = tmp_path / "secret.key"
    file.write_text(text)
    with pytest.raises(UsageError, match=r"secret.key is damaged"):
        master_secret(settings(tmp_path))
    assert file.read_text() == text


def test_a_folder_in_its_place_is_said(tmp_path):
    (tmp_path / "secret.key").mkdir()
    with pytest.raises(UsageError, match="cannot be used"):
        master_secret(settings(tmp_path))


def test_it_can_be_given_as_a_setting_and_then_there_is_no_file(tmp_path):
    key = bytes(range(32))
    text = base64.b64encode(key).decode()
    named = config.load("serve", {"data_dir": str(tmp_path / "data")}, {"CREWCAST_KEY": f" {text}\n"})
    assert master_secret(named) == key
    assert not (tmp_path / "data").exists()
    assert text not in repr(named)


def test_it_is_not_made_where_it_must_be_there(tmp_path):
    with pytest.raises(UsageError, match=r"no key file .*secret\.key.*--data-dir.*CREWCAST_KEY"):
        master_secret(settings(tmp_path / "data"), make=False)
    assert not (tmp_path / "data").exists()


def test_a_file_that_others_can_read_is_told(tmp_path, caplog):
    master_secret(settings(tmp_path))
    with caplog.at_level(logging.WARNING):
        master_secret(settings(tmp_path))
        assert caplog.records == []
        (tmp_path / "secret.key").chmod(0o644)
        master_secret(settings(tmp_path))
    [record] = caplog.records
    assert "secret.key (mode 644): chmod 600" in record.getMessage()


# --- whose key it is --------------------------------------------------------------------------


def unlocked(chosen) -> bytes:
    async def opened() -> bytes:
        store = await SQLiteStore.open(chosen.data_dir)
        try:
            return await unlock(chosen, store)
        finally:
            await store.close()

    return asyncio.run(opened())


def test_a_new_store_takes_the_key_and_knows_it_again(tmp_path):
    master = unlocked(settings(tmp_path))
    assert unlocked(settings(tmp_path)) == master


def test_a_key_of_an_older_release_is_taken_as_it_is(tmp_path):
    """It lay in the data folder before the database knew of it."""
    key = bytes(range(32))
    (tmp_path / "secret.key").write_bytes(base64.b64encode(key))
    (tmp_path / "secret.key").chmod(0o600)
    assert unlocked(settings(tmp_path)) == key


def test_a_database_without_its_key_gets_no_new_one(tmp_path):
    master = unlocked(settings(tmp_path))
    (tmp_path / "secret.key").unlink()
    with pytest.raises(UsageError, match=f"{fingerprint(master).hex()}, which is not there.*secret replace"):
        unlocked(settings(tmp_path))
    assert not (tmp_path / "secret.key").exists()


def test_a_database_refuses_another_key(tmp_path):
    master, other = unlocked(settings(tmp_path)), bytes(range(32))
    text = base64.b64encode(other).decode()
    with pytest.raises(UsageError) as caught:
        unlocked(settings(tmp_path, key=text))
    said = str(caught.value)
    assert fingerprint(master).hex() in said
    assert fingerprint(other).hex() in said
    assert text not in said
    assert unlocked(settings(tmp_path)) == master


def test_a_damaged_key_is_called_damaged_also_where_one_is_known(tmp_path):
    unlocked(settings(tmp_path))
    (tmp_path / "secret.key").write_text("not base64!")
    with pytest.raises(UsageError, match="is damaged"):
        unlocked(settings(tmp_path))


# --- what is sealed ---------------------------------------------------------------------------

MASTER, RUN, URL = bytes(range(32)), "01a20bb3-f86a-76d4-9da0-7cc97b4db906", "https://a.example/hook?k=v"


@given(st.binary(max_size=100))
def test_what_is_sealed_comes_back_and_does_not_show(plain):
    sealed = seal(MASTER, plain, RUN, URL)
    assert open_sealed(MASTER, sealed, RUN, URL) == plain
    assert len(plain) < 4 or plain not in sealed
    assert seal(MASTER, plain, RUN, URL) != sealed


@pytest.mark.parametrize(
    ("master", "run", "link"),
    [
        (bytes(32), RUN, URL),
        (MASTER, RUN[:-1] + "7", URL),
        (MASTER, RUN, URL + "x"),
        (MASTER, RUN + " ", URL),
    ],
)
def test_it_opens_for_its_own_run_and_url_only(master, run, link):
    with pytest.raises(SealError, match="cannot be opened"):
        open_sealed(master, seal(MASTER, b"token", RUN, URL), run, link)


def test_any_changed_byte_is_noticed():
    sealed = seal(MASTER, b"token", RUN, URL)
    for n in range(len(sealed)):
        changed = bytes([*sealed[:n], sealed[n] ^ 1, *sealed[n + 1 :]])
        with pytest.raises(SealError):
            open_sealed(MASTER, changed, RUN, URL)
        with pytest.raises(SealError):
            open_sealed(MASTER, sealed[:n], RUN, URL)


def test_the_cipher_is_the_one_that_is_said():
    """By the parts that it is made of: the key of the run, the nonce that was drawn, run and URL beside."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    sealed = seal(MASTER, b"token", RUN, URL, random=lambda n: bytes(range(n)))
    key = HKDF(SHA256(), 32, None, b"crewcast/seal/v1/" + RUN.encode()).derive(MASTER)
    beside = f"{RUN} {URL}".encode()
    assert sealed == b"\1" + bytes(range(12)) + AESGCM(key).encrypt(bytes(range(12)), b"token", beside)
