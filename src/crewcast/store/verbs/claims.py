"""Which lanes a dispatcher gets, without looking at all those that it cannot take."""

import json
from collections.abc import Callable, Sequence

from crewcast.core.lane import Lane
from crewcast.store.session import Session, Values

# How far a claim looks along what is due, where it has to pass over lanes. If all it finds there is to be
# passed over, it goes from origin to origin instead.
LOOK = 512
ALL = 1 << 62


async def due_lanes(
    db: Session,
    read: Callable[[Values], Lane],
    limit: int,
    token: str,
    now: int,
    busy: Sequence[str],
    per_origin: int | None,
) -> list[Lane]:
    """At most `limit`, longest due first, as `Store.claim_lanes` has it; not yet leased. `read` makes lanes of rows."""
    wanted = {"limit": limit, "now": now, "token": token, "busy": json.dumps(list(busy))}
    if not busy and per_origin is None:
        found = await db.all("due_lanes", {"limit": limit, "now": now})
    else:
        most = ALL if per_origin is None else per_origin
        found = await db.all("due_lanes_elsewhere", {**wanted, "per_origin": most, "look": LOOK})
        if not found and await db.first("due_lanes_beyond", {"now": now, "look": LOOK}):
            found = await _from_origin_to_origin(db, limit, now, wanted["busy"], min(most, limit))
    lapsed = await db.all("lapsed_lanes", wanted)
    lanes = sorted(
        map(read, [*found, *lapsed]), key=lambda lane: (lane.due_at or 0, lane.run_id, lane.number)
    )
    return _capped(lanes, per_origin)[:limit] if lapsed else lanes[:limit]


async def _from_origin_to_origin(
    db: Session, limit: int, now: int, busy: object, per_origin: int
) -> list[Values]:
    """From as many origins as are needed, those first whose lanes are due longest."""
    found: list[Values] = []
    for origin, _ in await db.all("due_origins", {"limit": limit, "now": now, "busy": busy}):
        found += await db.all("due_lanes_of_origin", {"origin": origin, "now": now, "limit": per_origin})
        if len(found) >= limit:
            break
    return found


def _capped(lanes: list[Lane], per_origin: int | None) -> list[Lane]:
    if per_origin is None:
        return lanes
    taken: dict[str, int] = {}
    kept = []
    for lane in lanes:
        taken[lane.origin] = taken.get(lane.origin, 0) + 1
        if taken[lane.origin] <= per_origin:
            kept.append(lane)
    return kept
