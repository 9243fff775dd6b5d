"""Which queued runs a worker gets, without looking at all those that it may not take."""

import json
from collections.abc import Mapping, Sequence
from heapq import merge
from typing import NamedTuple

from crewcast.core.run import Run
from crewcast.store import rows
from crewcast.store.session import Session


class Claim(NamedTuple):
    limit: int
    lease_token: str
    now: int
    until: int
    crews: Sequence[str]
    per_crew: Mapping[str, int]
    per_token: int | None


async def claim(db: Session, value: Claim) -> list[tuple[int, Run]]:
    """The runs that were taken, each with its key."""
    keys = await _chosen(db, value)
    await db.write_rows("claim_runs", [(key, value.now, value.lease_token, value.until) for key in keys])
    return [(key, rows.run_from(row)) for key in keys for row in await db.all("run_by_key", {"key": key})]


async def _free(db: Session, token: str, value: Claim) -> int:
    """How many more of a token may be at work."""
    if value.per_token is None:
        return value.limit
    ((running,),) = await db.all("running_of_token", {"token": token, "limit": value.per_token})
    return value.per_token - int(running)


async def _chosen(db: Session, value: Claim) -> list[int]:
    """The keys of the runs to be taken. The runs of one crew and token queue by themselves, and of each queue
    only as many are looked at as could be taken.
    """
    free_of_crew = {crew: min(value.limit, value.per_crew.get(crew, value.limit)) for crew in value.crews}
    free_of_token: dict[str, int] = {}
    queues = []
    for crew, token in await db.all("queues", {"crews": json.dumps(list(value.crews))}):
        if token not in free_of_token:
            free_of_token[token] = await _free(db, token, value)
        look = min(free_of_token[token], free_of_crew[crew])
        if look > 0:
            found = await db.all("queued_runs", {"crew": crew, "token": token, "limit": look})
            queues.append([(-priority, key, crew, token) for priority, key in found])
    chosen: list[int] = []
    for _, key, crew, token in merge(*queues):
        if len(chosen) >= value.limit:
            break
        if free_of_crew[crew] > 0 and free_of_token[token] > 0:
            free_of_crew[crew] -= 1
            free_of_token[token] -= 1
            chosen.append(key)
    return chosen
