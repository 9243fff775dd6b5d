"""Rows to values and back. Columns come in the order of the fields; see `columns.py`."""

from typing import Any

from crewcast.core.event import Channel, Event
from crewcast.core.lane import Attempt, Lane, Verdict
from crewcast.core.origin import Breaker, Health
from crewcast.core.outcome import Outcome
from crewcast.core.review import Choice, Default, How, Review, ReviewState
from crewcast.core.run import Run, RunState
from crewcast.store.columns import KICKOFF
from crewcast.store.protocol import Created, DeadLetter, IdempotencyKey
from crewcast.store.session import Values

# Plain strings: sqlite3 takes ten times as long for a subclass of str.
STATE_WORDS = {state: state.value for state in RunState}
VERDICT_WORDS = {verdict: verdict.value for verdict in Verdict}
_CHANNELS = [Channel(bits) for bits in range(1 << len(Channel))]


def run_from(row: Values) -> Run:
    run_id, crew, state, *rest = row
    rest[16] = bool(rest[16])  # continues
    return Run(run_id, crew, RunState(state), *rest)


def run_columns(run: Run) -> dict[str, Any]:
    return {
        "id": run.id,
        "crew": run.crew,
        "state": STATE_WORDS[run.state],
        "created_at": run.created_at,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "attempt": run.attempt,
        "seq": run.seq,
        "total_tasks": run.total_tasks,
        "completed_tasks": run.completed_tasks,
        "current_task": run.current_task,
        "lease_token": run.lease_token,
        "lease_until": run.lease_until,
        "error": run.error,
        "error_detail": run.error_detail,
        "continues": int(run.continues),
        "priority": run.priority,
        "token": run.token,
        "stop": run.stop,
        "worked": run.worked,
        "claimed_at": run.claimed_at,
    }


def kickoff_columns(run: int, made: Run) -> dict[str, Any]:
    return {"run": run} | {field: getattr(made, field) for field in KICKOFF}


def created_from(row: Values, key: IdempotencyKey) -> Created:
    """What a key started before."""
    run_id, fingerprint = row
    return Created(run_id, replayed=True, conflict=fingerprint != key.fingerprint)


def review_from(row: Values) -> Review:
    values = list(row)
    values[9] = None if row[9] is None else Default(row[9])
    values[13] = ReviewState(row[13])
    values[14] = None if row[14] is None else Choice(row[14])
    values[16] = bool(row[16])  # pass_feedback
    values[19] = None if row[19] is None else How(row[19])
    return Review(*values)


def review_columns(run: int, review: Review) -> dict[str, Any]:
    """As plain strings, also where the caller gave one for a member of an enumeration."""
    return {
        "run": run,
        "number": review.number,
        "task_id": review.task_id,
        "place": review.index,
        "uuid": review.uuid,
        "agent": review.agent,
        "output": review.output,
        "asked_at": review.asked_at,
        "expires_at": review.expires_at,
        "on_expiry": _plain(review.default),
        "remind_every": review.remind_every,
        "remind_at": review.remind_at,
        "reminders": review.reminders,
        "state": _plain(review.state),
        "decision": _plain(review.decision),
        "feedback": review.feedback,
        "pass_feedback": int(review.pass_feedback),
        "decided_at": review.decided_at,
        "decided_by": review.decided_by,
        "decided_how": _plain(review.decided_how),
        "due_at": review.due_at,
    }


def _plain(word: str | None) -> str | None:
    return None if word is None else str(word)


def event_from(row: Values) -> Event:
    run_id, seq, channel, kind, body, at, run_attempt, task_id, whole = row
    return Event(run_id, seq, _CHANNELS[channel], kind, body, at, run_attempt, task_id, whole)


def event_row(run: int, event: Event) -> Values:
    return (
        run,
        event.seq,
        int(event.channel),
        event.type,
        event.at,
        event.run_attempt,
        event.task_id,
        event.body,
        event.whole,
    )


def channels_from(bits: int) -> Channel:
    return _CHANNELS[bits]


def lane_from(row: Values) -> Lane:
    run_id, number, url, origin, channels, *rest = row
    rest[9:11] = map(bool, rest[9:11])  # dead_only, ordered
    rest[16] = bool(rest[16])  # ranged
    return Lane(run_id, number, url, origin, _CHANNELS[channels], *rest)


def lane_row(run: int, lane: Lane, born: int | None = None, since: int = 0) -> Values:
    """The store's own: `born` is the last attempt when a replay was asked for, `since` the moment before which
    one with `dead_only` passes over dead letters.
    """
    return (
        run,
        lane.number,
        lane.url,
        lane.origin,
        int(lane.channels),
        lane.cursor,
        lane.tail,
        lane.settled,
        lane.tries,
        lane.due_at,
        lane.closed,
        lane.lease_token,
        lane.lease_until,
        lane.replay_of,
        int(lane.dead_only),
        int(lane.ordered),
        lane.auth,
        lane.refusals,
        lane.split_of,
        lane.total,
        lane.asked_at,
        born,
        since,
    )


def attempt_from(row: Values) -> tuple[int, Attempt]:
    number, run_id, lane, seq, tries, at, verdict, *outcome = row
    return number, Attempt(run_id, lane, seq, tries, at, Outcome(*outcome), Verdict(verdict))


def attempt_row(
    number: int, previous: int | None, run: int, lease_token: str | None, made: Attempt
) -> Values:
    outcome = made.outcome
    return (
        number,
        previous,
        run,
        made.lane,
        lease_token,
        made.seq,
        made.number,
        made.at,
        VERDICT_WORDS[made.verdict],
        outcome.kind,
        outcome.status,
        outcome.retry_after,
        outcome.duration,
        outcome.detail,
    )


def health_from(row: Values) -> Health:
    origin, state, *rest = row
    return Health(origin, Breaker(state), *rest)


def health_columns(health: Health) -> dict[str, Any]:
    return {
        "origin": health.origin,
        "state": health.state.value,
        "failures": health.failures,
        "openings": health.openings,
        "opened_at": health.opened_at,
        "retry_at": health.retry_at,
        "paused_until": health.paused_until,
        "reason": health.reason,
    }


def dead_letter_from(row: Values) -> DeadLetter:
    run_id, lane, seq, at, reason, url, origin, kind, lane_seq, redelivered, number = row
    return DeadLetter(run_id, lane, seq, at, reason, url, origin, kind, lane_seq, bool(redelivered), number)
