"""Rotations of secrets, and whose master key they derive from."""

from typing import NamedTuple

from crewcast.core.generation import Rotation, Rotations
from crewcast.store.sqlite.session import Session


class Rotate(NamedTuple):
    origin: str
    now: int
    until: int


class Bind(NamedTuple):
    fingerprint: bytes
    replace: bool


def rotate(db: Session, value: Rotate) -> Rotation | None:
    before = Rotations(Rotation(*row) for row in db.all("rotations", {}))
    new = before.next(value.origin, value.now, value.until)
    if new is not None:
        db.write(
            "add_rotation", {"number": new.number, "origin": new.origin, "at": new.at, "until": new.until}
        )
    return new


def bind_key(db: Session, value: Bind) -> bytes:
    db.write("bind_master_key", {"id": value.fingerprint, "replace": value.replace})
    ((noted,),) = db.all("master_key", {})
    return bytes(noted)
