"""Runs that wait for a person, and runs that somebody ends: decisions, the list of reviews, stops."""

from starlette.requests import Request
from starlette.responses import Response

from crewcast.api.app import Context, answer, context_of, read_body, run_of
from crewcast.api.query import PAGE, number
from crewcast.contract import endings
from crewcast.contract import resume as resumes
from crewcast.contract.problem import Problem
from crewcast.contract.resume import parse_resume
from crewcast.contract.webhooks import JSON, rfc3339
from crewcast.core import review as reviews
from crewcast.core import run as runs
from crewcast.core.lane import Lane
from crewcast.core.review import Decision, How, Review, ReviewState
from crewcast.core.run import Run, RunState

MAX_NAME = 200
HOWS = {"cli": How.CLI}


async def resume(request: Request) -> Response:
    """Takes a person's decision about the task at which a run waits."""
    context = context_of(request)
    context.token(request)
    asked = parse_resume(await read_body(request, context.max_body_bytes), context.check_url)
    run = await run_of(context, request, asked.kickoff_id)
    found = await _meant(context, run, asked)
    subscriptions = None
    if asked.change.moved:
        lanes = await context.store.lanes(run.id)
        subscriptions = resumes.taken_over(lanes, asked.change, run.id, context.seal)
    decision = Decision(
        asked.approve, asked.feedback, _who(request), _how(request), pass_feedback=found.pass_feedback
    )
    decided = await decide(context, found, decision, subscriptions)
    return answer(resumes.answer(decided, run.id, asked.warnings))


async def decide(
    context: Context, review: Review, decision: Decision, subscriptions: list[Lane] | None = None
) -> Review:
    """The review as it is decided now, or as it was decided just so before.

    Raises Problem 400 if it was decided otherwise, or its run does not wait any more.
    """
    store = context.store
    while True:
        run = await store.run(review.run_id)
        found = await store.review(review.run_id, review.number)
        if run is None or found is None:
            raise resumes.not_pending(None)
        if found.state is not ReviewState.PENDING:
            if reviews.same(found, decision):
                return found
            raise resumes.not_pending(found, _why(found, run))
        if run.state not in (RunState.WAITING, RunState.RUNNING):
            raise resumes.not_pending(None, f" (the run is {run.state})")
        in_place = run.state is RunState.RUNNING
        if in_place and subscriptions is not None:
            raise Problem(
                422,
                "Validation Error",
                "This run waits in its own process, and its webhook URLs cannot be changed with the decision",
            )
        now = context.clock.now()
        if found.expires_at is not None and found.expires_at <= now:
            raise resumes.not_pending(None, f": the time for task {found.task_id} is over")
        after = reviews.decide(found, decision, now)
        resumed = run if in_place else runs.resume(run)
        if await store.decide(after, run, resumed, [], subscriptions):
            return after


async def listed(request: Request) -> Response:
    """A page of reviews, those that wait first asked first; each with the link that decides it."""
    context = context_of(request)
    context.token(request)
    state = request.query_params.get("state", ReviewState.PENDING)
    if state not in (*ReviewState, "all"):
        raise Problem(
            422,
            "Validation Error",
            f"state must be all or one of {', '.join(ReviewState)}",
            {"field": "state"},
        )
    after, limit = number(request, "after", 0), min(number(request, "limit", PAGE), 1000)
    found = await context.store.reviews(
        None if state == "all" else ReviewState(state),
        request.query_params.get("kickoff_id"),
        after,
        limit + 1,
    )
    told = found[:limit]
    last = told[-1][0] if told else after
    return answer(
        {
            "reviews": [{"id": place, **_told(context, review)} for place, review in told],
            "next": last if len(found) > limit else None,
        }
    )


async def stop(request: Request) -> Response:
    """Ends a run: at once if nobody works on it, else at the crew's next step. The answer says what is so."""
    context = context_of(request)
    context.token(request)
    by, store = _who(request), context.store
    run = await run_of(context, request, request.path_params["kickoff_id"])
    while not run.state.ended:
        if run.state is RunState.RUNNING:
            found = await store.request_stop(run.id, by)
            if found is not None and found.state is RunState.RUNNING:
                told = "The run stops at its crew's next step, or is ended after a grace time"
                return answer(_stopped(run, "stopping", told), 202)
        else:
            kept = await store.journal(run.id)
            after, events = endings.unheld(
                endings.stopped, run, by, kept, context.clock.now(), context.max_event_bytes
            )
            if await store.conclude(run, after, events):
                return answer(_stopped(run, "stopped", "The run was stopped; nothing of it was at work"))
        again = await store.run(run.id)
        if again is None:
            break
        run = again
    if run.state is RunState.CANCELLED:
        return answer(_stopped(run, "stopped", "The run was stopped before"))
    word = {RunState.COMPLETED: "SUCCESS", RunState.FAILED: "FAILURE"}.get(run.state, run.state)
    raise Problem(
        400,
        "Bad Request",
        f"Cannot stop execution. Current state: {word}",
        {"state": word, "kickoff_id": run.id},
    )


def _stopped(run: Run, status: str, message: str) -> JSON:
    return {
        "status": status,
        "message": message,
        "kickoffId": run.id,
        "kickoff_id": run.id,
        "execution_id": run.id,
    }


async def _meant(context: Context, run: Run, asked: resumes.Resume) -> Review:
    """The newest review that the request may mean.

    Raises Problem 400 if there is none.
    """
    newest = await context.store.review(run.id, asked.review)
    if newest is None:
        raise resumes.not_pending(None)
    if asked.means(newest):
        return newest
    if newest.state is not ReviewState.PENDING or asked.review is not None:
        raise resumes.not_pending(None, f" for task {asked.task_id[:MAX_NAME]!r}")
    # A decision of an earlier task may be repeated while a later one waits.
    for _, review in reversed(await context.store.reviews(None, run.id, 0, 1000)):
        if asked.means(review):
            return review
    raise resumes.not_pending(
        None, f" for task {asked.task_id[:MAX_NAME]!r}; the task that waits is {newest.task_id!r}"
    )


def _why(review: Review, run: Run) -> str:
    if review.state is ReviewState.VOID:
        return f": the run is {run.state}"
    return ""


def _who(request: Request) -> str:
    """Who decides or stops, in their own words (UTF-8): a token says only that they may."""
    given = request.headers.get("crewcast-actor", "").encode("latin-1").decode("utf-8", "replace")
    name = "".join(c if c.isprintable() else " " for c in given)
    return " ".join(name.split())[:MAX_NAME] or "the API"


def _how(request: Request) -> How:
    return HOWS.get(request.headers.get("crewcast-client", ""), How.API)


def _told(context: Context, review: Review) -> JSON:
    told: JSON = {
        "kickoff_id": review.run_id,
        "review": review.number,
        "task_id": review.task_id,
        "index": review.index,
        "uuid": review.uuid,
        "agent": review.agent or None,
        "output": review.output,
        "state": review.state,
        "asked_at": rfc3339(review.asked_at),
        "expires_at": _moment(review.expires_at),
        "default": review.default,
        "reminders": review.reminders,
        "decision": review.decision,
        "feedback": review.feedback or None,
        "decided_at": _moment(review.decided_at),
        "decided_by": review.decided_by,
        "decided_how": review.decided_how,
    }
    if review.state is ReviewState.PENDING:
        told["review_url"] = context.links.url(review.run_id, review.number)
    return {name: value for name, value in told.items() if value is not None}


def _moment(at: int | None) -> str | None:
    return None if at is None else rfc3339(at)
