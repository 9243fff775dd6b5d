"""What is known of origins."""

from typing import NamedTuple

from crewcast.core.origin import Health
from crewcast.store.sqlite import rows
from crewcast.store.sqlite.session import Session


class Reset(NamedTuple):
    origin: str
    now: int
    limit: int


def save(db: Session, health: Health) -> None:
    if health.well:
        db.write("forget_origin", {"origin": health.origin})
    else:
        db.write("save_origin", rows.health_columns(health))


def reset(db: Session, value: Reset) -> int:
    """How many of its lanes became due."""
    db.write("forget_origin", {"origin": value.origin})
    return db.write("hurry_lanes", value._asdict())
