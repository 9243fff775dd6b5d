"""Redelivery: which events a replay sends is decided once, when it is asked for."""

from typing import NamedTuple

from msgspec.structs import replace

from crewcast.core.lane import Lane
from crewcast.store import rows
from crewcast.store.session import LARGEST, Session, Values
from crewcast.store.verbs import subscriptions


class Redeliver(NamedTuple):
    run_id: str
    now: int
    lane: int | None
    seq: int | None
    dead_only: bool
    since: int
    target: tuple[str, str] | None
    auth: bytes | None


async def redeliver(db: Session, run: int, value: Redeliver, last_attempt: int) -> list[Lane]:
    """The replays that `value` asks for, written; `run` is the run's key."""
    if not 0 <= (value.lane or 0) <= LARGEST or not 0 <= (value.seq or 0) <= LARGEST:
        return []  # no database has such numbers, or lets itself be asked for them
    if not value.dead_only:
        value = value._replace(since=0)
    made: list[Lane] = []
    for row in await db.all("replayable", {"run": run, "lane": value.lane}):
        lane = await _replay(db, run, value, row)
        if lane is not None:
            made.append(lane)
    if made:
        ((number,),) = await db.all("last_lane", {"run": run})
        made = [replace(lane, number=number + n) for n, lane in enumerate(made, 1)]
        await db.write_rows(
            "create_lanes", [rows.lane_row(run, lane, last_attempt, value.since) for lane in made]
        )
        await subscriptions.mark_ranged(db, run, made)
    return made


async def _replay(db: Session, run: int, value: Redeliver, row: Values) -> Lane | None:
    number, url, origin, channels, auth, ordered, tail, total, ranged = row
    if value.target is not None:
        url, origin = value.target
    if value.target is not None or value.auth is not None:
        auth = value.auth
    found = await _range(db, {"run": run, "lane": number, "seq": value.seq}, value, tail, total)
    if found is None:
        return None
    cursor, tail, settled, total = found
    return Lane(
        value.run_id,
        0,
        url,
        origin,
        rows.channels_from(channels),
        cursor=cursor,
        tail=tail,
        settled=settled,
        total=total,
        due_at=value.now,
        replay_of=number,
        dead_only=value.dead_only,
        ordered=bool(ordered),
        auth=auth,
        asked_at=value.now,
        ranged=bool(ranged),
    )


async def _range(
    db: Session, where: dict[str, int | None], value: Redeliver, tail: int, total: int
) -> tuple[int, int, int, int] | None:
    """`cursor`, `tail`, `settled` and `total` of what is to be sent, or None for nothing."""
    if value.dead_only:
        ((count, first, last),) = await db.all("dead_in_lane", where | {"since": value.since})
        return (first - 1, last, 0, count) if count else None
    if value.seq is None:
        return (0, tail, 0, total) if total else None
    ((place, last),) = await db.all("place_in_lane", where)
    return (value.seq - 1, value.seq, place - 1, place) if last == value.seq else None
