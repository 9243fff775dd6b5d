"""What is known of origins, and the secrets that sign for them."""

from typing import NamedTuple

from crewcast.core.origin import Health
from crewcast.store.sqlite import rows
from crewcast.store.sqlite.session import Session


class Reset(NamedTuple):
    origin: str
    now: int
    limit: int


class NewSecret(NamedTuple):
    origin: str
    sealed: bytes
    now: int
    until: int
    before: bytes | None


def save(db: Session, health: Health) -> None:
    if health.well:
        db.write("forget_origin", {"origin": health.origin})
    else:
        db.write("save_origin", rows.health_columns(health))


def reset(db: Session, value: Reset) -> int:
    """How many of its lanes became due."""
    db.write("forget_origin", {"origin": value.origin})
    return db.write("hurry_lanes", value._asdict())


def add_secret(db: Session, value: NewSecret) -> None:
    origin, sealed, now, until, before = value
    db.write("forget_secrets", {"now": now})
    if before is not None and db.first("newest_secret", {"origin": origin}) is None:
        db.write("add_secret", {"origin": origin, "sealed": before, "at": 0})
    db.write("expire_secrets", {"origin": origin, "until": until})
    db.write("add_secret", {"origin": origin, "sealed": sealed, "at": now})
