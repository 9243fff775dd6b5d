"""The master key: where it is kept, whose it is, and what is sealed with it.

Everything secret derives from it: the signing secrets of all origins, and the key that stored authentications
are sealed with. It stays out of the database, so that a copy of the database alone opens nothing.
"""

import asyncio
import base64
import contextlib
import logging
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path

from crewcast.config import Settings
from crewcast.core.errors import SealError, UsageError
from crewcast.core.signature import hkdf
from crewcast.store.protocol import Store

log = logging.getLogger("crewcast.keys")

FILE_NAME = "secret.key"
LENGTH = 32
_SEALED = b"\1"  # the first byte of what is sealed in this way
_NONCE = 12


def master_secret(settings: Settings, *, make: bool = True) -> bytes:
    """The 32 bytes of `key`, or else of the key file, which with `make` is made (0600) if it is not there.

    Raises UsageError if the file cannot be read, made or understood.
    """
    if settings.key is not None:
        return bytes(settings.key)
    file = key_file(settings)
    try:
        if make and not file.exists():
            _make(file)
        mode = stat.S_IMODE(file.stat().st_mode)
        text = file.read_text("ascii").strip()
        key = base64.b64decode(text, validate=True)
    except FileNotFoundError as e:
        raise UsageError(
            f"there is no key file {file}: name the server's data folder with --data-dir, its key file with "
            "--key-file, or set CREWCAST_KEY"
        ) from e
    except OSError as e:
        raise UsageError(f"the key file {file} cannot be used: {e.strerror or e}") from e
    except ValueError as e:
        raise UsageError(
            f"the key file {file} is damaged: {e}. Restore it; a new one changes every signature."
        ) from e
    if len(key) != LENGTH:
        raise UsageError(
            f"the key file {file} is damaged: it holds {len(key)} bytes, not {LENGTH}. Restore it."
        )
    if mode & 0o077:
        log.warning("others can read the key file %s (mode %o): chmod 600 it", file, mode)
    return key


def key_file(settings: Settings) -> Path:
    """Beside the database unless it is named: one folder is all there is to keep on a laptop or a volume.

    What is backed up is the database, by SQLite's VACUUM INTO while the server runs; the key goes to another
    place once. The store knows whose key it was written with (`unlock`), so a database that comes back
    without its key is told of, and not signed with a new one.
    """
    file: Path = settings.key_file or settings.data_dir / FILE_NAME
    return file


async def unlock(settings: Settings, store: Store) -> bytes:
    """The master key, if it is the one that the store was written with; a new store takes any.

    Raises UsageError, and makes no key, if it is not: every signature would be wrong, every subscriber would
    refuse, and within minutes the events would be dead letters.
    """
    noted = await store.key_fingerprint()
    try:
        master = await asyncio.to_thread(master_secret, settings, make=noted is None)
    except UsageError as e:
        if noted is None or key_file(settings).exists():
            raise
        raise UsageError(
            f"{place(settings)} was written with the master key {noted.hex()}, which is not there. {_mend(settings)}"
        ) from e
    own = fingerprint(master)
    noted = noted or await store.bind_key(own)
    if noted != own:
        raise UsageError(
            f"{place(settings)} was written with the master key {noted.hex()}, and this one is {own.hex()}. {_mend(settings)}"
        )
    return master


def place(settings: Settings) -> str:
    """Where the server keeps what it knows, in words that tell no password."""
    return f"the data folder {settings.data_dir}" if settings.database_url is None else "the database"


def _mend(settings: Settings) -> str:
    what = (
        "Restore it"
        if settings.database_url is None
        else "Every node needs the same one: give it to this one"
    )
    return (
        f"{what} (key_file, CREWCAST_KEY). If it is lost, `crewcast secret replace` takes the present one: "
        "every subscriber then needs a new secret"
    )


def fingerprint(master: bytes) -> bytes:
    """Names a master key without telling it."""
    return hkdf(master, b"crewcast/fingerprint/v1", 8)


def seal(
    master: bytes, plain: bytes, run_id: str, url: str, random: Callable[[int], bytes] = os.urandom
) -> bytes:
    """`plain` as only the holder of the master key reads it, and only as belonging to this run and URL.

    AES-256-GCM under a key of the run, so that the random nonces of one key stay few.
    """
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = random(_NONCE)
    return _SEALED + nonce + AESGCM(_run_key(master, run_id)).encrypt(nonce, plain, _belongs_to(run_id, url))


def open_sealed(master: bytes, sealed: bytes, run_id: str, url: str) -> bytes:
    """What was sealed.

    Raises SealError if it was sealed with another key or for another run or URL, or was changed.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    head, nonce, rest = sealed[:1], sealed[1 : 1 + _NONCE], sealed[1 + _NONCE :]
    complaint = (
        f"what was sealed for run {run_id} cannot be opened: the master key is another, or it was changed"
    )
    if head != _SEALED:
        raise SealError(complaint)
    try:
        return AESGCM(_run_key(master, run_id)).decrypt(nonce, rest, _belongs_to(run_id, url))
    except (InvalidTag, ValueError) as e:  # ValueError: it is not even as long as a nonce
        raise SealError(complaint) from e


def _run_key(master: bytes, run_id: str) -> bytes:
    return hkdf(master, b"crewcast/seal/v1/" + run_id.encode())


def _belongs_to(run_id: str, url: str) -> bytes:
    return f"{run_id} {url}".encode()


def _make(file: Path) -> None:
    """Whole or not at all: written beside, synced, then linked to its name; the first one wins."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(base64.b64encode(secrets.token_bytes(LENGTH)) + b"\n")
            out.flush()
            os.fsync(out.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(part, file)
        _sync(file.parent)
    finally:
        part.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Makes the new file's name survive a power cut: the store notes the key right after."""
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
