"""How runs go: hidden at once. Each engine removes their rows in its own way, later."""

from collections.abc import Sequence
from typing import NamedTuple

from crewcast.store.protocol import Removal
from crewcast.store.session import Keys, Session


class Expire(NamedTuple):
    run_ids: Sequence[str]
    before: int


async def expire(db: Session, keys: Keys, value: Expire) -> list[str]:
    """Hides those that still may go."""
    hidden = []
    for run_id in value.run_ids:
        key = await keys.of(run_id)
        if await db.write("hide_expired", {"key": key, "before": value.before}):
            await _let_go(db, keys, run_id, key)
            hidden.append(run_id)
    return hidden


async def hide(db: Session, keys: Keys, run_id: str) -> Removal:
    key = await keys.of(run_id)
    if not key:
        return Removal.UNKNOWN
    if not await db.write("hide_run", {"key": key}):
        return Removal.RUNNING
    await _let_go(db, keys, run_id, key)
    return Removal.HIDDEN


async def _let_go(db: Session, keys: Keys, run_id: str, key: int) -> None:
    """Nobody holds anything of the run any more, and no write finds its key."""
    await db.write("hide_lanes", {"key": key})
    await db.write("hide_review", {"key": key})
    await keys.forget(run_id)
