"""A run again from one of its tasks: a new run that takes over what was finished before it."""

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import Response

from crewcast.api.amp import refuse_while_draining, started, wanted_key
from crewcast.api.app import Context, context_of, read_body, run_of
from crewcast.contract import rerun as reruns
from crewcast.contract import resume as resumes
from crewcast.contract import terms
from crewcast.contract.kickoff import Kickoff, parse_kickoff
from crewcast.contract.rerun import Rerun
from crewcast.contract.terms import Terms
from crewcast.core import ids
from crewcast.core.lane import Lane
from crewcast.core.run import Run, new_run


async def rerun(request: Request) -> Response:
    """Stored and durable before the answer, as a kickoff; the same Idempotency-Key gives the same run."""
    context = context_of(request)
    token = context.token(request)
    before = await run_of(context, request, request.path_params["kickoff_id"])
    body = await read_body(request, context.max_body_bytes)
    now = context.clock.now()
    key = wanted_key(request, token, f"{before.crew}\0rerun\0{before.id}", body)
    if key is not None and (earlier := await context.store.earlier(key, now)):
        return started(earlier, [])
    refuse_while_draining(context)
    if not before.state.ended:
        raise reruns.not_ended(before)
    crew = context.crew(before.crew)
    await crew.refresh()
    asked = reruns.parse_rerun(body, before)
    taken = reruns.take_over(before, await context.store.journal(before.id), asked)
    kickoff = parse_kickoff(msgspec.json.encode(asked.kickoff), crew.known(), context.check_url)
    run = _run(before, asked, kickoff, ids.run_id(now, context.random(10)), now, token)
    if taken.done:
        total = crew.total_tasks()
        run = replace(run, completed_tasks=taken.done, total_tasks=total or before.total_tasks)
    lanes = await _lanes(context, before, asked, kickoff, run.id)
    created = await context.store.create_run(run, lanes, key, now, taken.journal)
    return started(created, kickoff.warnings, {"rerun_of": before.id, "from_task": taken.first})


def _run(before: Run, asked: Rerun, kickoff: Kickoff, run_id: str, now: int, token: str) -> Run:
    old = terms.of_run(before.options)
    new = Terms(
        limits=kickoff.terms.limits if asked.named("limits") else old.limits,
        review=kickoff.terms.review if asked.named("review") else old.review,
        rerun_of=before.id,
    )
    timed = asked.named("timeout") or asked.named("limits")
    return new_run(
        run_id,
        before.crew,
        msgspec.json.encode(kickoff.inputs),
        now,
        meta=None if kickoff.meta is None else msgspec.json.encode(kickoff.meta),
        options=msgspec.json.encode(new),
        token=token,
        priority=kickoff.priority if asked.named("priority") else before.priority,
        max_attempts=kickoff.max_attempts if asked.named("max_attempts") else before.max_attempts,
        timeout=kickoff.timeout if timed else before.timeout,
    )


async def _lanes(
    context: Context, before: Run, asked: Rerun, kickoff: Kickoff, run_id: str
) -> Sequence[Lane]:
    """The webhooks of the run before, except where the request says otherwise."""
    change = resumes.parse_change(asked.kickoff, context.check_url, [])
    lanes = [
        replace(lane, auth=context.reseal(lane, run_id))
        for lane in await context.store.lanes(before.id)
        if not lane.fixed
    ]
    wanted = resumes.taken_over(lanes, change, run_id, context.seal)
    ordered = kickoff.ordered if asked.named("ordering") else None
    return [
        Lane(
            run_id,
            number,
            lane.url,
            lane.origin,
            lane.channels,
            ordered=lane.ordered if ordered is None else ordered,
            auth=lane.auth,
        )
        for number, lane in enumerate(wanted, 1)
    ]
