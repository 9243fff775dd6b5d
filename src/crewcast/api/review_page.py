"""The page behind a review's link: what a task made, and two buttons. Only a POST decides."""

import asyncio
from html import escape
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from crewcast.api import pages
from crewcast.api.app import Context, context_of, read_body
from crewcast.api.reviews import decide
from crewcast.contract.problem import Problem
from crewcast.core import moment
from crewcast.core.backoff import SECOND
from crewcast.core.review import Choice, Decision, How, Review, ReviewState
from crewcast.core.run import Run

MOST_SHOWN = 200_000  # characters of an output
BY = "the review link"


async def page(request: Request) -> Response:
    """GET and POST are one route, so that `Allow` has both."""
    return await (take if request.method == "POST" else show)(request)


async def show(request: Request) -> Response:
    context = context_of(request)
    review, run = await _find(context, request)
    if review is None or run is None:
        return _nowhere()
    return _page(200, *await asyncio.to_thread(_told, review, run, context.clock.now()))


async def take(request: Request) -> Response:
    """The decision of the form."""
    context = context_of(request)
    review, run = await _find(context, request)
    if review is None or run is None:
        return _nowhere()
    fields = parse_qs((await read_body(request, context.max_body_bytes)).decode("utf-8", "replace"))
    choice = fields.get("decision", [""])[0]
    feedback = fields.get("feedback", [""])[0].replace("\r\n", "\n").strip()
    if choice not in tuple(Choice):
        return _page(422, *_told(review, run, context.clock.now(), "Choose one of the two buttons."))
    if choice == Choice.REJECT and not feedback:
        why = "Nothing was decided: without a word on what is to be changed it cannot be done again."
        return _page(422, *_told(review, run, context.clock.now(), why))
    decision = Decision(choice == Choice.APPROVE, feedback, BY, How.LINK, pass_feedback=review.pass_feedback)
    try:
        decided = await decide(context, review, decision)
    except Problem:
        again, run = await _find(context, request)
        assert again is not None
        assert run is not None
        return _page(
            409,
            *_told(
                again, run, context.clock.now(), "Your decision was not taken: none was awaited any more."
            ),
        )
    return _page(200, *_told(decided, run, context.clock.now()))


def _nowhere() -> Response:
    return _page(
        404,
        "There is no review here",
        "<p>The link may not have been copied as a whole, or its run was deleted.</p>",
    )


async def _find(context: Context, request: Request) -> tuple[Review | None, Run | None]:
    named = context.links.read(request.path_params["token"])
    if named is None:
        return None, None
    return await context.store.review(*named), await context.store.run(named[0])


def _told(review: Review, run: Run, now: int, wrong: str = "") -> tuple[str, str]:
    """Title and content."""
    shown = review.output[:MOST_SHOWN]
    if len(shown) < len(review.output):
        shown += f"\n… [{len(review.output)} characters in all]"
    agent = f" by {escape(review.agent)}" if review.agent else ""
    head = (
        f"<p class=soft>Made{agent} in the crew {escape(run.crew)}, run {escape(run.id)}, "
        f"on {_day(review.asked_at)}</p>"
    )
    body = f"<pre tabindex=0>{escape(shown)}</pre>" if shown else "<p><em>It made an empty text.</em></p>"
    complaint = f"<p class=wrong role=alert>{escape(wrong)}</p>" if wrong else ""
    if review.state is ReviewState.PENDING and (review.expires_at is None or now < review.expires_at):
        until = ""
        if review.expires_at is not None:
            until = f"<p class=soft>Without a decision by {_day(review.expires_at)}: {_DEFAULTS[review.default or 'fail']}.</p>"
        return f"{review.task_id}: is it good?", head + body + complaint + _FORM + until
    return f"{review.task_id}: {_outcome(review)}", head + complaint + _decided(review, run) + body


def _outcome(review: Review) -> str:
    if review.decision is None:
        return "no decision is awaited any more"
    return "approved" if review.decision is Choice.APPROVE else "to be done again"


def _decided(review: Review, run: Run) -> str:
    if review.decision is None:
        return f"<p>The run is {escape(run.state)}.</p>"
    by = f" by {escape(review.decided_by)}" if review.decided_by else ""
    if review.decided_how is not None:
        by = _HOWS.get(review.decided_how, by)
    at = f" on {_day(review.decided_at)}" if review.decided_at is not None else ""
    said = f"<h2>What was said</h2><pre tabindex=0>{escape(review.feedback)}</pre>" if review.feedback else ""
    return f"<p>Decided{by}{at}. This page can be closed.</p>{said}<h2>What it was about</h2>"


def _day(at: int) -> str:
    return moment.show(at - at % SECOND)[:16].replace("T", " ") + " UTC"


_DEFAULTS = {
    "approve": "it counts as approved",
    "reject": "it is done again",
    "fail": "the run fails",
}

_HOWS = {How.LINK: " through the review link", How.DEADLINE: " by the deadline"}

_FORM = """<form method=post>
<label for=feedback>What should the crew know?</label>
<p class=soft id=hint>To have it done again, say what is to be changed. An approval needs no words.</p>
<textarea id=feedback name=feedback maxlength=20000 aria-describedby=hint></textarea>
<div class=choice>
<button class=approve name=decision value=approve>Approve</button>
<button class=reject name=decision value=reject>Do it again</button>
</div></form>"""


def _page(status: int, title: str, content: str) -> Response:
    sheet = pages.style("review.css")
    html = (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<meta name=robots content=noindex><title>{escape(title)}</title><style>{sheet}</style></head>"
        f"<body><main><h1>{escape(title)}</h1>{content}</main></body></html>"
    )
    return HTMLResponse(
        html,
        status,
        {**pages.headers(sheet, forms=True), "cache-control": "no-store", "x-robots-tag": "noindex"},
    )
