"""Who hears a run from a decision on: what a lane heard when is kept in ranges of the run's numbers."""

from collections.abc import Sequence

from msgspec.structs import replace

from crewcast.core.lane import Lane
from crewcast.store import rows
from crewcast.store.session import LARGEST, Session


async def take_over(db: Session, run: int, seq: int, wanted: Sequence[Lane]) -> None:
    """After event `seq`, the URLs of `wanted` hear the run and nobody else; `run` is the run's key."""
    by_url = {lane.url: lane for lane in wanted}
    if len(by_url) < len(wanted):
        raise ValueError("a run has one subscription for a URL")
    for number, url, heard, auth, ranged in await db.all("subscriptions", {"run": run}):
        lane = by_url.pop(url, None)
        hears = 0 if lane is None else int(lane.channels)
        if hears != heard:
            await _change(db, {"run": run, "lane": number, "seq": seq}, heard, hears, ranged=bool(ranged))
        opens = auth if lane is None else lane.auth
        if hears != heard or opens != auth:
            changed = {"channels": hears, "auth": opens, "ranged": int(hears != heard)}
            await db.write("hear", {"run": run, "number": number, **changed})
    await _begin(db, run, seq, [lane for lane in by_url.values() if lane.channels])


async def _change(db: Session, where: dict[str, int], heard: int, hears: int, *, ranged: bool) -> None:
    seq = where["seq"]
    if ranged:
        await db.write("end_range", where)
        await db.write("drop_range", where)
    elif seq:
        await _range(db, where, 1, seq, heard)
    if hears:
        await _range(db, where, seq + 1, LARGEST, hears)


async def _begin(db: Session, run: int, seq: int, new: Sequence[Lane]) -> None:
    """Lanes for URLs that the run did not have: nothing before belongs to them."""
    if not new:
        return
    ((last,),) = await db.all("last_lane", {"run": run})
    for number, lane in enumerate(new, last + 1):
        made = Lane(
            lane.run_id,
            number,
            lane.url,
            lane.origin,
            lane.channels,
            cursor=seq,
            tail=seq,
            ordered=lane.ordered,
            auth=lane.auth,
        )
        await db.write_rows("create_lanes", [rows.lane_row(run, made)])
        await mark_ranged(db, run, [replace(made, ranged=True)])
        await _range(db, {"run": run, "lane": number}, seq + 1, LARGEST, int(lane.channels))


async def mark_ranged(db: Session, run: int, made: Sequence[Lane]) -> None:
    """Those lanes of `made` that are so."""
    for lane in made:
        if lane.ranged:
            await db.write("mark_ranged", {"run": run, "number": lane.number})


async def _range(db: Session, where: dict[str, int], first: int, last: int, channels: int) -> None:
    row = {"run": where["run"], "lane": where["lane"], "first": first, "last": last, "channels": channels}
    await db.write("begin_range", row)
