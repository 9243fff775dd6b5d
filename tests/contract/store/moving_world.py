"""A data folder with something of all that there is, made through the verbs; and what the verbs tell of it."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from crewcast.core import run as runs
from crewcast.core.event import Channel, Event
from crewcast.core.generation import EVERY_ORIGIN
from crewcast.core.lane import Lane, split
from crewcast.core.origin import Breaker, Health
from crewcast.core.review import Default
from crewcast.core.run import Run, RunState
from crewcast.store.protocol import IdempotencyKey, Removal, Store
from crewcast.store.sqlite import SQLiteStore
from tests.contract.store.world import (
    ALL,
    BUSY,
    DAY,
    DISPATCHER,
    GONE,
    LEASE,
    NOW,
    SECOND,
    WORKER,
    append,
    claimed,
    decided,
    delivered,
    ended,
    event,
    lane,
    new_run,
    one_lane,
    paused,
    running,
    settlement,
    waiting,
)

STEP, TASK, CREW = Channel.STEP, Channel.TASK, Channel.CREW
A, B = "https://a.example/hook", "https://b.example/hook"
KEY = IdempotencyKey("token-1", "key-1", b"\x00print")
FINGERPRINT = b"\x00\x01key\xff"
ODD = "gr\u00f6\u00dfer \U0001fad6 \u202e\0 end"  # with a NUL, which PostgreSQL cannot keep
KEPT = "gr\u00f6\u00dfer \U0001fad6 \u202e\ufffd end"
BODY = bytes(range(256)) * 40


class World(NamedTuple):
    """The runs by what became of them."""

    completed: str
    failed: str
    cancelled: str
    closed: str
    split: str
    replayed: str
    ranged: str
    queued: str
    later: str
    waits: str
    stopped: str
    at_work: str
    deleted: str


async def fill(folder: Path) -> World:
    """Leaves nothing at rest: at the end, lanes and a run are held, replays are half sent, a run waits."""
    store = await SQLiteStore.open(folder)
    world = World(
        completed=(await _completed(store)).id,
        failed=(await _failed(store)).id,
        cancelled=(await _cancelled(store)).id,
        closed=(await _closed(store)).id,
        split=(await _split(store)).id,
        replayed=(await _replayed(store)).id,
        queued=(await _queued(store, "crew", priority=-2)).id,
        later=(await _queued(store, "crew", now=NOW + 2 * DAY, priority=-2)).id,
        waits=(await _waits(store)).id,
        stopped=(await _stopped(store)).id,
        at_work=(await _at_work(store)).id,
        deleted=(await _deleted(store)).id,
        ranged=(await _ranged(store)).id,
    )
    await store.bind_key(FINGERPRINT)
    await store.rotate("https://a.example", NOW, NOW + DAY)
    await store.rotate(EVERY_ORIGIN, NOW + 1, NOW + 1)
    await store.save_origin(Health("https://c.example", Breaker.OPEN, 10, 2, NOW, NOW + DAY, None, "refused"))
    await store.save_origin(Health("https://d.example", paused_until=NOW + SECOND, reason="status:429"))
    await store.close()
    return world


async def _completed(store: Store) -> Run:
    """All delivered; with bodies of every byte."""
    run = await running(store, ALL, STEP, auth=b"\x01sealed\x00")
    events = [
        Event(run.id, 1, TASK, "task.completed", BODY, NOW, 1, "task-1", b"\x00" + BODY),
        Event(run.id, 2, STEP, "step", b"", NOW, 1, ODD),
    ]
    run = replace(run, seq=2, total_tasks=3, completed_tasks=1, current_task=ODD)
    assert await store.append(run, events, WORKER, {"task/1": BODY, "gone": b"x"})
    assert await store.append(run, [], WORKER, {"gone": None, "empty": b""})
    run = await ended(store, run)
    for mine in await claimed(store):
        await delivered(store, mine, *([1, 2, 3] if mine.number == 1 else [2]))
    return run


async def _failed(store: Store) -> Run:
    """Two days later, with two of its events given up and one of these redelivered since."""
    made = replace(new_run("running", NOW + 2 * DAY), meta=b'{"a":"\\u0000"}', options=b"{}", token="token-1")
    await store.create_run(made, [lane(made, 1, ALL, A)], KEY, NOW)
    (run,) = await store.claim_runs(["running"], 1, WORKER, NOW + 2 * DAY, LEASE)
    run = await append(store, run, STEP, TASK)
    done = replace(runs.end(run, RunState.FAILED, NOW + 2 * DAY, error=ODD, detail="line\n" + ODD), seq=3)
    assert await store.append(done, [event(run, 3, CREW)], WORKER)
    (mine,) = await claimed(store)
    mine = await delivered(store, mine, 1, 2, outcome=replace(BUSY, detail=ODD))
    (mine,) = await claimed(store)
    await delivered(store, mine, 3)
    await store.redeliver(run.id, now=NOW, seq=1, dead_only=True)
    (replay,) = await claimed(store)
    await delivered(store, replay, 1)
    return done


async def _cancelled(store: Store) -> Run:
    run = new_run("crew")
    await store.create_run(run, [], None, NOW, {"first": b"\x00"})
    after = replace(runs.end(run, RunState.CANCELLED, NOW, error="stopped by kim"), stop="kim")
    assert await store.conclude(run, after, [])
    return after


async def _closed(store: Store) -> Run:
    """Its subscriber said that it is gone; what came later is a dead letter too."""
    run = await append(store, await running(store, ALL, url=B), STEP, STEP)
    (mine,) = await claimed(store)
    await delivered(store, mine, 1, outcome=GONE)
    run = await append(store, run, STEP)
    return await ended(store, run)


async def _split(store: Store) -> Run:
    """One event has left a lane that is not ordered, and waits for its next attempt."""
    run = await append(store, await running(store, ALL, ordered=False), STEP, STEP, STEP)
    (mine,) = await claimed(store)
    failed = settlement(mine, event(run, 1), BUSY)
    rest, apart = split(mine, event(run, 1), failed.lane)
    assert await store.settle(replace(failed, lane=rest, split=apart))
    await delivered(store, rest, 2, 3)
    return await ended(store, run)


async def _replayed(store: Store) -> Run:
    """A replay of everything that has sent one, and one of dead letters that has sent none."""
    run = await append(store, await running(store, ALL, url=B), STEP, STEP, STEP)
    mine = next(one for one in await claimed(store) if one.run_id == run.id)
    await delivered(store, mine, 1, 2, 3, outcome=BUSY)
    await store.redeliver(
        run.id, now=NOW, target=("https://e.example/x?key=1", "https://e.example"), auth=b"\x02"
    )
    replay = next(one for one in await claimed(store) if one.run_id == run.id)
    await delivered(store, replay, 1)
    await store.redeliver(run.id, now=NOW + DAY, dead_only=True, since=NOW)
    return await ended(store, run)


async def _ranged(store: Store) -> Run:
    """Decided, with other subscriptions from then on: queued to go on."""
    run, asked = await waiting(store, ALL, STEP)
    subscriptions = [
        lane(run, 1, STEP, "https://a.example/hook"),
        replace(lane(run, 2, TASK | CREW, "https://f.example/new"), auth=b"\x03"),
    ]
    return await decided(store, run, asked, STEP, TASK, subscriptions=subscriptions)


async def _queued(store: Store, crew: str, now: int = NOW, **fields: Any) -> Run:
    run = replace(new_run(crew, now), max_attempts=3, timeout=9 * SECOND, **fields)
    await store.create_run(run, [lane(run, 1, ALL, A), lane(run, 2, CREW, B)], None, NOW)
    return run


async def _waits(store: Store) -> Run:
    """For its second decision, with a deadline and reminders."""
    run, asked = await waiting(store, ALL)
    run = await decided(store, run, asked)
    (run,) = [one for one in await store.claim_runs(["running"], 9, WORKER, NOW, LEASE) if one.id == run.id]
    run, _ = await paused(
        store, run, 2, output=ODD, expires_at=NOW + DAY, default=Default.REJECT, remind_every=DAY // 4
    )
    return run


async def _stopped(store: Store) -> Run:
    """At work, and asked to stop; its lease has lapsed long ago."""
    run = await append(store, await running(store, ALL), TASK)
    await store.request_stop(run.id, "kim")
    return run


async def _at_work(store: Store) -> Run:
    """At work, with a lease that holds for years, and a lane that is held in the middle."""
    run = new_run("long")
    await store.create_run(run, [lane(run)], None, NOW)
    (run,) = await store.claim_runs(["long"], 1, "worker-2", NOW, 100 * 365 * DAY)
    run = await append(store, run, STEP, STEP, token="worker-2")
    for mine in await store.claim_lanes(99, DISPATCHER, NOW + DAY, LEASE):
        if mine.run_id == run.id:
            written = settlement(mine, event(run, 1))
            assert await store.settle(written)
    return run


async def _deleted(store: Store) -> Run:
    """Nobody sees it any more; its rows are still there."""
    run = await append(store, await running(store, ALL), STEP)
    run = await ended(store, run)
    assert await store.delete_run(run.id) is Removal.HIDDEN
    return run


# --- what is told ---------------------------------------------------------------------------


def kept(value: Any) -> Any:
    """A value as PostgreSQL has it: with another character for each NUL of a text."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, msgspec.Struct):
        return replace(value, **{name: kept(getattr(value, name)) for name in value.__struct_fields__})
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(
            value, **{one.name: kept(getattr(value, one.name)) for one in dataclasses.fields(value)}
        )
    if isinstance(value, dict):
        return {kept(key): kept(one) for key, one in value.items()}
    return type(value)(map(kept, value)) if type(value) in (list, tuple) else value


async def told(store: Store, world: World) -> dict[str, Any]:
    """The answer of every verb that reads."""
    found: dict[str, Any] = {}
    for what, run_id in world._asdict().items():
        lanes = await store.lanes(run_id)
        found[f"{what}: run"] = await store.run(run_id)
        found[f"{what}: events"] = await store.events(run_id)
        found[f"{what}: a page"] = await store.events(run_id, after=1, limit=1, channels=STEP | CREW)
        found[f"{what}: last"] = [await store.last_event(run_id, channel) for channel in (TASK, STEP, CREW)]
        found[f"{what}: lanes"] = lanes
        found[f"{what}: to send"] = [await store.lane_events(one, 99) for one in lanes]
        found[f"{what}: beside"] = [await store.pending_beside(one) for one in lanes]
        found[f"{what}: attempts"] = await store.attempts(run_id)
        found[f"{what}: dead letters"] = await store.dead_letters(run_id)
        found[f"{what}: undelivered"] = await store.undelivered(run_id=run_id)
        found[f"{what}: journal"] = await store.journal(run_id)
        found[f"{what}: review"] = await store.review(run_id)
        found[f"{what}: reviews"] = await store.reviews(None, run_id)
    found["running"] = await store.running_runs()
    found["lapsed"] = await store.lapsed_runs(NOW + DAY, 9)
    found["stops"] = await store.stops(WORKER)
    found["pending"] = await store.reviews()
    found["reviews"] = await store.reviews(None)
    found["due reviews"] = await store.due_reviews(NOW + 9 * DAY, 9)
    found["next review"] = await store.next_review_due()
    found["undelivered"] = await store.undelivered()
    found["undelivered of one"] = await store.undelivered("https://b.example", since=NOW)
    found["dead lanes"] = [replace(one, place=()) for one in await store.dead_lanes(None, 0, None, 9)]
    found["health"] = sorted(await store.health(), key=lambda one: one.origin)
    found["origins"] = await store.origins()
    found["rotations"] = await store.rotations()
    found["key"] = await store.key_fingerprint()
    found["earlier"] = await store.earlier(KEY, NOW + 1)
    found["next due"] = await store.next_due()
    found["next due elsewhere"] = await store.next_due(["https://a.example"])
    return found


async def lane_of(store: Store, run_id: str, number: int) -> Lane:
    run = await store.run(run_id)
    assert run is not None
    return await one_lane(store, run, number)
