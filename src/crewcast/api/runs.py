"""What can be seen of a run beyond AMP's API: its events as they come, its deliveries, its output."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from typing import BinaryIO

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from crewcast.api.amp import why_queued
from crewcast.api.app import Context, answer, context_of, run_of
from crewcast.api.query import PAGE, digits, number
from crewcast.contract import amp as bodies
from crewcast.contract.problem import Problem
from crewcast.contract.webhooks import JSON, rfc3339, without_link
from crewcast.core import url
from crewcast.core.backoff import SECOND
from crewcast.core.errors import StoreError
from crewcast.core.event import Channel, Event
from crewcast.core.run import Run
from crewcast.store.protocol import Hint, level

log = logging.getLogger("crewcast.api")

KEEP_ALIVE = 15 * SECOND
LOOK_AGAIN = 2 * SECOND  # where other nodes work on the run, whose hints may be lost
AGAIN = 1 * SECOND  # after an error of the store
CHUNK = 64 * 1024


async def events(request: Request) -> Response:
    """A page of the run's log (`after`, `limit`), or with `Accept: text/event-stream` all of it as it comes.

    A stream starts after `Last-Event-ID` (or `after`) and ends with the run.
    """
    context = context_of(request)
    context.token(request)
    run = await run_of(context, request, request.path_params["kickoff_id"])
    after = number(request, "after", 0)
    if "text/event-stream" in request.headers.get("accept", ""):
        last = digits(request.headers.get("last-event-id", ""))
        start = after if last is None else last
        return StreamingResponse(
            _stream(context, run.id, start),
            media_type="text/event-stream",
            headers={"cache-control": "no-store"},
        )
    limit = min(number(request, "limit", PAGE), 1000)
    found = await context.store.events(run.id, after, limit)
    return answer({"kickoff_id": run.id, "events": [_told(event) for event in found]})


async def event(request: Request) -> Response:
    """One event with its whole payload, also where the delivered one was cut."""
    context = context_of(request)
    context.token(request)
    run = await run_of(context, request, request.path_params["kickoff_id"])
    text = request.path_params["seq"]
    seq = digits(text) or 0
    found = await context.store.events(run.id, seq - 1, 1) if seq > 0 else []
    if not found or found[0].seq != seq:
        raise Problem(404, "Event not found", f"Run {run.id} has no event {text[:32]!r}")
    return answer(_told(found[0], whole=True))


async def deliveries(request: Request) -> Response:
    """The run's lanes, every attempt and its outcome, and what was given up."""
    context = context_of(request)
    context.token(request)
    run = await run_of(context, request, request.path_params["kickoff_id"])
    lanes = await context.store.lanes(run.id)
    attempts = await context.store.attempts(run.id, number(request, "after", 0))
    dead = await context.store.dead_letters(run.id)
    return answer(
        {
            "kickoff_id": run.id,
            "lanes": [
                {
                    "lane": lane.number,
                    "url": url.redacted(lane.url),
                    "channels": [channel.label for channel in lane.channels],
                    "settled": lane.settled,
                    "pending": lane.cursor < lane.tail and lane.closed is None,
                    "due_at": None if lane.due_at is None else rfc3339(lane.due_at),
                    "closed": lane.closed,
                    "replay_of": lane.replay_of,
                    "split_of": lane.split_of,
                }
                for lane in lanes
            ],
            "attempts": [
                {
                    "id": growing,
                    "lane": attempt.lane,
                    "seq": attempt.seq,
                    "attempt": attempt.number,
                    "at": rfc3339(attempt.at),
                    "outcome": attempt.outcome.kind,
                    "status": attempt.outcome.status,
                    "seconds": attempt.outcome.duration / SECOND,
                    "verdict": attempt.verdict,
                    "detail": attempt.outcome.detail,
                }
                for growing, attempt in attempts
            ],
            "dead_letters": [
                {
                    "lane": letter.lane,
                    "seq": letter.seq,
                    "lane_seq": letter.lane_seq,
                    "type": letter.type,
                    "at": rfc3339(letter.at),
                    "reason": letter.reason,
                    "redelivered": letter.redelivered,
                }
                for letter in dead
            ],
        }
    )


async def logs(request: Request) -> Response:
    """What the crew printed on stdout and stderr, as text."""
    context = context_of(request)
    context.token(request)
    run = await run_of(context, request, request.path_params["kickoff_id"])
    try:
        file = await asyncio.to_thread(context.log_file(run.id).open, "rb")
    except FileNotFoundError:
        if run.started_at is not None and context.log_elsewhere is not None:
            raise bodies.log_is_elsewhere(run.id, context.log_elsewhere(run.lease_token)) from None
        return PlainTextResponse("")
    size = os.fstat(file.fileno()).st_size
    return StreamingResponse(
        _first(size, file), media_type="text/plain; charset=utf-8", headers={"content-length": str(size)}
    )


async def _first(size: int, file: BinaryIO) -> AsyncIterator[bytes]:
    """The first `size` bytes of a file to which a crew may still be writing."""
    with file:
        while size and (chunk := await asyncio.to_thread(file.read, min(size, CHUNK))):
            size -= len(chunk)
            yield chunk


async def _stream(context: Context, run_id: str, after: int) -> AsyncIterator[bytes]:
    """Server-sent events: `run` when its state moves, `event` for each of the log, id = seq."""
    changed = asyncio.Event()

    def listener(hint: Hint, about: str) -> None:
        if hint is Hint.EVENTS and about == run_id:
            changed.set()

    forget = context.store.listen(listener)
    told: JSON | None = None
    clock, look_again = context.clock, LOOK_AGAIN if context.shared else KEEP_ALIVE
    said_at = clock.now()
    try:
        while True:
            changed.clear()
            run, found = await _seen(context, run_id, after)
            for one in found:
                yield _sse("event", _told(one), one.seq)
                after, said_at = one.seq, clock.now()
            if run is None:
                return
            if len(found) == PAGE:
                continue
            state = _state(context, run)
            if state != told:
                told, said_at = state, clock.now()
                yield _sse("run", state)
            if run.state.ended and run.seq <= after:
                return
            if said_at + KEEP_ALIVE <= clock.now():
                said_at = clock.now()
                yield b": still here\n\n"
            pause = look_again if run.started_at else 1 * SECOND
            await clock.wait(changed, min(pause, said_at + KEEP_ALIVE - clock.now()))
    finally:
        forget()


async def _seen(context: Context, run_id: str, after: int) -> tuple[Run | None, list[Event]]:
    """The run as it is, and its next events, of which none is missing that it had then. An error of the store is
    waited out: the watcher need not come again.
    """
    while True:
        try:
            run = await context.store.run(run_id)
            return run, [] if run is None else await context.store.events(run_id, after, PAGE)
        except StoreError as e:
            log.log(level(e), "the events of run %s wait: they cannot be read: %s", run_id, e)
            await context.clock.wait(asyncio.Event(), AGAIN)


def _state(context: Context, run: Run) -> JSON:
    """What a watcher is told of a run's state: as `/status`, and why it waits if it does."""
    crew = context.crews.get(run.crew)
    now = context.clock.now()
    state = bodies.status(run, now, None, crew.total_tasks() if crew else None, paused=context.paused_status)
    state |= why_queued(context, run)
    state["crew_state"] = crew.state() if crew else "not served here"
    state.pop("execution_time", None)  # it would move at every look
    if not run.started_at and not run.state.ended:
        state["waited"] = (now - run.created_at) // SECOND
    return state


def _sse(name: str, body: JSON, seq: int | None = None) -> bytes:
    head = f"id: {seq}\n" if seq is not None else ""
    return f"{head}event: {name}\ndata: ".encode() + msgspec.json.encode(body) + b"\n\n"


def _told(event: Event, *, whole: bool = False) -> JSON:
    body = event.whole if whole and event.whole is not None else event.body
    if event.channel is Channel.HUMAN_INPUT:
        body = without_link(body)
    return {
        "id": event.id,
        "seq": event.seq,
        "channel": event.channel.label,
        "type": event.type,
        "at": rfc3339(event.at),
        "run_attempt": event.run_attempt,
        "cut": event.whole is not None,
        "payload": msgspec.Raw(body),
    }
