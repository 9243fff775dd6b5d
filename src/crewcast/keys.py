"""The master secret that signing secrets derive from."""

import base64
import contextlib
import os
import secrets
from pathlib import Path

from crewcast.config import Settings
from crewcast.core.errors import UsageError

FILE_NAME = "secret.key"


def master_secret(settings: Settings) -> bytes:
    """The 32 bytes in the key file, which is made (0600) if it is not there.

    Raises UsageError if the file cannot be read, made or understood.
    """
    file: Path = settings.key_file or settings.data_dir / FILE_NAME
    try:
        if not file.exists():
            _make(file)
        text = file.read_text("ascii").strip()
        key = base64.b64decode(text, validate=True)
    except OSError as e:
        raise UsageError(f"the key file {file} cannot be used: {e.strerror or e}") from e
    except ValueError as e:
        raise UsageError(
            f"the key file {file} is damaged: {e}. Restore it; a new one changes every signature."
        ) from e
    if len(key) != 32:
        raise UsageError(f"the key file {file} is damaged: it holds {len(key)} bytes, not 32. Restore it.")
    return key


def _make(file: Path) -> None:
    """Whole or not at all: written beside, synced, then linked to its name; the first one wins."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(base64.b64encode(secrets.token_bytes(32)) + b"\n")
            out.flush()
            os.fsync(out.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(part, file)
    finally:
        part.unlink(missing_ok=True)
