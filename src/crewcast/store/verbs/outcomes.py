"""What an attempt changes beside its lane."""

from msgspec.structs import replace

from crewcast.core.lane import Lane, Verdict
from crewcast.store import rows
from crewcast.store.protocol import Settlement
from crewcast.store.session import Session
from crewcast.store.verbs import subscriptions


def changes_more(value: Settlement) -> bool:
    return value.attempt.verdict is not Verdict.ACCEPTED or value.lane.replay_of is not None


async def consequences(db: Session, run: int, value: Settlement, attempt: int) -> None:
    """`run` is the run's key, `attempt` the number that the attempt was given."""
    verdict = value.attempt.verdict
    if verdict is Verdict.ACCEPTED:
        which = {"run": run, "seq": value.attempt.seq, "replayed": value.lane.replay_of}
        await db.write("redelivered", {**which, "attempt": attempt})
    elif verdict is not Verdict.RETRY:
        await _bury(db, run, value, attempt)
    elif value.split is not None:
        await _split(db, run, value.lane, value.split)


async def _bury(db: Session, run: int, value: Settlement, number: int) -> None:
    lane, attempt = value.lane, value.attempt
    where = {"run": run, "lane": lane.number, "at": attempt.at, "attempt": number}
    reason = lane.closed or attempt.outcome.kind
    await db.write("give_up", {**where, "seq": attempt.seq, "reason": reason, "lane_seq": lane.settled})
    if attempt.verdict is Verdict.CLOSED:
        await db.write("give_up_rest", where)


async def _split(db: Session, run: int, lane: Lane, apart: Lane) -> None:
    ((number,),) = await db.all("last_lane", {"run": run})
    ((born, ranged),) = await db.all("born", {"run": run, "number": lane.number})
    made = replace(apart, number=number + 1, ranged=bool(ranged))
    await db.write_rows("create_lanes", [rows.lane_row(run, made, born if apart.dead_only else None)])
    await subscriptions.mark_ranged(db, run, [made])
