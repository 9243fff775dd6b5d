"""What was not delivered, and sending it again; how the origins are that deliveries go to."""

import asyncio
import logging

from starlette.requests import Request
from starlette.responses import Response

from crewcast.api.app import Context, answer, context_of, read_body
from crewcast.api.query import PAGE, number
from crewcast.contract import amp as bodies
from crewcast.contract import redelivery
from crewcast.contract.problem import Problem, json_object
from crewcast.contract.redelivery import OfOrigin, OfRun, Where
from crewcast.contract.webhooks import JSON, rfc3339
from crewcast.core import url
from crewcast.core.errors import StoreError
from crewcast.core.lane import Lane
from crewcast.store.protocol import DeadLetter, OriginRow, Removal, level

log = logging.getLogger("crewcast.api")

LANES_AT_ONCE = 100


async def redeliver(request: Request) -> Response:
    """Sends again what a run sent or gave up, or a page of what was given up at an origin."""
    context = context_of(request)
    context.token(request)
    asked = redelivery.parse(await read_body(request, context.max_body_bytes), context.check_url)
    if isinstance(asked, OfOrigin):
        return answer(await _of_origin(context, asked))
    return answer({"lanes": [_replay(lane) for lane in await _of_run(context, asked)], "next": None})


async def _of_run(context: Context, asked: OfRun) -> list[Lane]:
    if await context.store.run(asked.kickoff_id) is None:
        raise bodies.unknown_run(asked.kickoff_id)
    return await context.store.redeliver(
        asked.kickoff_id,
        now=context.clock.now(),
        lane=asked.lane,
        seq=asked.seq,
        dead_only=asked.dead_only,
        target=_target(asked.where),
        auth=_sealed(context, asked.where, asked.kickoff_id),
    )


async def _of_origin(context: Context, asked: OfOrigin) -> JSON:
    """One page. What was stored of it is told even if the store cannot go on: `next` is then where to."""
    found = await context.store.dead_lanes(asked.origin, asked.since, asked.after, LANES_AT_ONCE + 1)
    made: list[Lane] = []
    done = 0
    for dead in found[:LANES_AT_ONCE]:
        try:
            made += await context.store.redeliver(
                dead.run_id,
                now=context.clock.now(),
                lane=dead.lane,
                dead_only=True,
                since=asked.since,
                target=_target(asked.where),
                auth=_sealed(context, asked.where, dead.run_id),
            )
        except StoreError as e:
            if not done:
                raise
            log.log(level(e), "not all of a redelivery was stored: %s", e)
            break
        done += 1
    more = done < len(found)
    return {
        "lanes": [_replay(lane) for lane in made],
        "next": redelivery.next_place(found[done - 1].place) if more else None,
    }


def _target(where: Where | None) -> tuple[str, str] | None:
    return None if where is None else (where.url, where.origin)


def _sealed(context: Context, where: Where | None, run_id: str) -> bytes | None:
    """What is sealed can be opened for this run and URL only."""
    return None if where is None or where.auth is None else context.seal(where.auth, run_id, where.url)


def _replay(lane: Lane) -> JSON:
    return {
        "kickoff_id": lane.run_id,
        "lane": lane.number,
        "replay_of": lane.replay_of,
        "events": lane.total - lane.settled,
    }


async def undelivered(request: Request) -> Response:
    """A page of what was given up and no redelivery has delivered since, in the order of giving up."""
    context = context_of(request)
    context.token(request)
    asked = request.query_params
    after, limit = number(request, "after", 0), min(number(request, "limit", PAGE), 1000)
    found = await context.store.undelivered(
        redelivery.origin("origin", asked["origin"]) if "origin" in asked else None,
        asked.get("kickoff_id"),
        redelivery.since("since", asked["since"]) if "since" in asked else 0,
        after,
        limit + 1,
    )
    told = found[:limit]
    last = told[-1].number if told else after
    return answer(
        {
            "dead_letters": [_undelivered(letter) for letter in told],
            "next": last if len(found) > limit else None,
        }
    )


def _undelivered(letter: DeadLetter) -> JSON:
    return {
        "number": letter.number,
        "kickoff_id": letter.run_id,
        "lane": letter.lane,
        "seq": letter.seq,
        "lane_seq": letter.lane_seq,
        "type": letter.type,
        "url": url.redacted(letter.url),
        "at": rfc3339(letter.at),
        "reason": letter.reason,
    }


async def origins(request: Request) -> Response:
    """Every origin that is not well, or for which something waits."""
    context = context_of(request)
    context.token(request)
    return answer({"origins": [_origin(row) for row in await context.store.origins()]})


def _origin(row: OriginRow) -> JSON:
    health = row.health
    return {
        "origin": health.origin,
        "state": health.state.value,
        "reason": health.reason,
        "failures": health.failures,
        "opened_at": _moment(health.opened_at),
        "retry_at": _moment(health.retry_at),
        "paused_until": _moment(health.paused_until),
        "lanes": row.lanes,
        "events": row.events,
    }


def _moment(at: int | None) -> str | None:
    return None if at is None else rfc3339(at)


async def reset(request: Request) -> Response:
    """Forgets that an origin failed: everything that waits for it is due now."""
    context = context_of(request)
    context.token(request)
    body = json_object(await read_body(request, context.max_body_bytes))
    origin = redelivery.origin("origin", body.get("origin"))
    now, lanes = context.clock.now(), 0
    while became_due := await context.store.reset_origin(origin, now):
        lanes += became_due
    return answer({"origin": origin, "lanes": lanes})


async def delete(request: Request) -> Response:
    """Removes a run that is not running, with all that is known of it."""
    context = context_of(request)
    context.token(request)
    run_id = request.path_params["kickoff_id"]
    match await context.store.delete_run(run_id):
        case Removal.UNKNOWN:
            raise bodies.unknown_run(run_id)
        case Removal.RUNNING:
            raise Problem(
                409, "Execution is running", f"Run {run_id} is running; it can be deleted once it has ended"
            )
    try:
        await asyncio.to_thread(context.log_file(run_id).unlink, missing_ok=True)
    except OSError as e:  # a start looks for such files
        log.error("the log file of the deleted run %s is still there: %s", run_id, e)
    return Response(status_code=204)
