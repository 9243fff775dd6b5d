"""Rotations of signing secrets, and the master key that they derive from."""

from typing import NamedTuple

from crewcast.core.generation import Rotation, Rotations
from crewcast.store.session import Session


class Rotate(NamedTuple):
    origin: str
    now: int
    until: int


class Bind(NamedTuple):
    fingerprint: bytes
    replace: bool


async def rotate(db: Session, value: Rotate) -> Rotation | None:
    before = Rotations(Rotation(*row) for row in await db.all("rotations", {}))
    new = before.next(value.origin, value.now, value.until)
    if new is not None:
        row = {"number": new.number, "origin": new.origin, "at": new.at, "until": new.until}
        await db.write("add_rotation", row)
    return new


async def bind(db: Session, value: Bind) -> bytes:
    await db.write("bind_master_key", {"id": value.fingerprint, "replace": value.replace})
    ((noted,),) = await db.all("master_key", {})
    return bytes(noted)
