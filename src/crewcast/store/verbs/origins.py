"""What is known of origins."""

from typing import NamedTuple

from crewcast.core.origin import Health
from crewcast.store import rows
from crewcast.store.session import Session


class Reset(NamedTuple):
    origin: str
    now: int
    limit: int


async def save(db: Session, health: Health) -> None:
    if health.well:
        await db.write("forget_origin", {"origin": health.origin})
    else:
        await db.write("save_origin", rows.health_columns(health))


async def reset(db: Session, value: Reset) -> int:
    """How many of its lanes became due."""
    await db.write("forget_origin", {"origin": value.origin})
    return await db.write("hurry_lanes", value._asdict())
