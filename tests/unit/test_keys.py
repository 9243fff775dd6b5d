"""The key file: made once, private, and never replaced when it is damaged."""

import base64
import stat

import pytest

from crewcast import config
from crewcast.core.errors import UsageError
from crewcast.keys import master_secret


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
