"""The verbs that write, for the committer: the values of many callers, a handful of statements."""

import sqlite3
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, NamedTuple

from msgspec.structs import replace

from crewcast.core.event import Event
from crewcast.core.lane import Lane
from crewcast.core.run import Run
from crewcast.store import rows
from crewcast.store.protocol import KEYS_KEPT_FOR, Created, IdempotencyKey, Settlement
from crewcast.store.session import Values, finish
from crewcast.store.sqlite import appends, sweep
from crewcast.store.sqlite.committer import R, Unheld, V, Verb
from crewcast.store.sqlite.run_keys import ImmediateKeys, RunKeys
from crewcast.store.sqlite.session import Immediate, Session
from crewcast.store.verbs import (
    journal,
    nodes,
    origins,
    outcomes,
    queue,
    replays,
    retention,
    reviews,
    secrets,
)
from crewcast.store.verbs.append import Append
from crewcast.store.verbs.claims import due_lanes
from crewcast.store.verbs.journal import Entries


class NewRun(NamedTuple):
    run: Run
    lanes: Sequence[Lane]
    key: IdempotencyKey | None
    now: int
    journal: Entries


class Adopt(NamedTuple):
    run: Run
    lease_token: str
    until: int


class Renew(NamedTuple):
    lease_token: str
    until: int


class ClaimLanes(NamedTuple):
    limit: int
    lease_token: str
    now: int
    until: int
    busy: Sequence[str]
    per_origin: int | None


class Release(NamedTuple):
    lane: Lane
    now: int


class Park(NamedTuple):
    lanes: Sequence[Lane]
    due_at: int


class Writes:
    """Everything here runs in the committer's thread, inside its transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._db = Session(connection)
        self._rules = db = Immediate(self._db)
        self._keys = RunKeys(self._db)
        keys = ImmediateKeys(self._keys)
        self._key = self._keys.of
        self._last_attempt: int | None = None
        self.create_run = Verb(0, _each(self._create_run))
        self.append = Verb(1, self._append)
        self.settle = Verb(2, self._settle, patient=True)
        self.release_lane = Verb(3, _each(self._release_lane))
        self.park_lanes = Verb(3, _each(self._park_lanes))
        self.redeliver = Verb(3, _each(self._redeliver))
        self.save_origin = Verb(3, _rule(origins.save, db))
        self.reset_origin = Verb(3, _rule(origins.reset, db))
        self.void_leases = Verb(3, _each(self._void_leases))
        self.adopt = Verb(3, _each(self._adopt))
        self.decide = Verb(3, _rule(reviews.decide, db, keys, self._log))
        self.remind = Verb(3, _rule(reviews.remind, db, keys, self._log))
        self.conclude = Verb(3, _rule(reviews.conclude, db, keys, self._log))
        self.request_stop = Verb(3, _rule(reviews.request_stop, db, keys))
        self.renew_runs = Verb(4, _each(self._renew_runs))
        self.renew_lanes = Verb(4, _each(self._renew_lanes))
        self.expire = Verb(4, _rule(retention.expire, db, keys))
        self.delete_run = Verb(4, _rule(retention.hide, db, keys))
        self.rotate = Verb(4, _rule(secrets.rotate, db))
        self.bind_key = Verb(4, _rule(secrets.bind, db))
        self.beat = Verb(4, _rule(nodes.beat, db))
        self.leave = Verb(4, _rule(nodes.leave, db))
        self.claim_runs = Verb(5, _each(self._claim_runs))
        self.claim_lanes = Verb(5, _each(self._claim_lanes))
        self.sweep = Verb(6, _each(self._sweep))

    def forget(self) -> None:
        """After a rollback: numbers that were drawn may be drawn again."""
        self._keys.forget()
        self._last_attempt = None

    # --- runs -------------------------------------------------------------------------------

    def _create_run(self, value: NewRun) -> Created:
        run, lanes, key, now, entries = value
        if key is not None:
            since = now - KEYS_KEPT_FOR
            earlier = self._db.first("remembered_key", {"token": key.token, "key": key.key, "since": since})
            if earlier is not None:
                return rows.created_from(earlier, key)
            self._db.write("forget_keys", {"since": since})
            self._db.write(
                "remember_key",
                {
                    "token": key.token,
                    "key": key.key,
                    "fingerprint": key.fingerprint,
                    "run_id": run.id,
                    "at": now,
                },
            )
        number = self._db.insert("create_run", rows.run_columns(run))
        self._db.write("create_kickoff", rows.kickoff_columns(number, run))
        self._db.write_rows("create_lanes", [rows.lane_row(number, lane) for lane in lanes])
        if entries:
            finish(journal.write, self._rules, [(number, entries)])
        return Created(run.id)

    def _claim_runs(self, value: queue.Claim) -> list[Run]:
        return [run for _, run in finish(queue.claim, self._rules, value)]

    def _renew_runs(self, value: Renew) -> list[str]:
        held = self._db.all("renew_runs", {"token": value.lease_token, "until": value.until})
        return [run_id for (run_id,) in held]

    def _adopt(self, value: Adopt) -> bool:
        run, token, until = value
        return (
            self._db.write(
                "adopt_run",
                {"key": self._key(run.id), "seen": run.lease_token, "token": token, "until": until},
            )
            == 1
        )

    # --- the log ----------------------------------------------------------------------------

    def _append(self, values: Sequence[Append]) -> list[bool]:
        return appends.append(self._db, self._rules, self._keys, values)

    async def _log(self, run: Run, events: Sequence[Event], before: int) -> None:
        appends.log(self._db, self._keys, run, events, before)

    # --- lanes ------------------------------------------------------------------------------

    def _claim_lanes(self, value: ClaimLanes) -> list[Lane]:
        limit, token, now, until, busy, per_origin = value
        lanes = finish(due_lanes, self._rules, rows.lane_from, limit, token, now, busy, per_origin)
        self._db.write_rows(
            "claim_lanes", [(self._key(lane.run_id), lane.number, token, until) for lane in lanes]
        )
        return [replace(lane, lease_token=token, lease_until=until) for lane in lanes]

    def _renew_lanes(self, value: Renew) -> None:
        self._db.write("renew_lanes", {"token": value.lease_token, "until": value.until})

    def _settle(self, values: Sequence[Settlement]) -> list[bool]:
        # The last state of each lane is written; each settlement has the whole state.
        latest: dict[tuple[int, int], tuple[Settlement, int]] = {}
        attempts: list[Values] = []
        first = number = self._attempts_made()
        for value in values:
            lane = value.lane
            key = self._key(lane.run_id)
            earlier = latest.get((key, lane.number))
            previous = None
            if earlier is not None:
                before, previous = earlier
                if before.release or before.lane.lease_token != lane.lease_token:
                    raise Unheld
            number += 1
            latest[key, lane.number] = value, number
            attempts.append(rows.attempt_row(number, previous, key, lane.lease_token, value.attempt))
        if self._db.write_rows("settle_attempts", attempts) < len(values):
            if len(values) == 1:
                return [False]
            raise Unheld
        self._last_attempt = number
        self._move_lanes(latest)
        for made, value in enumerate(values, first + 1):
            if outcomes.changes_more(value):
                finish(outcomes.consequences, self._rules, self._key(value.lane.run_id), value, made)
        return [True] * len(values)

    def _attempts_made(self) -> int:
        if self._last_attempt is None:
            ((self._last_attempt,),) = self._db.all("last_attempt", {})
        return self._last_attempt or 0

    def _move_lanes(self, latest: Mapping[tuple[int, int], tuple[Settlement, int]]) -> None:
        held: list[Values] = []
        moved: list[Values] = []
        for (key, number), (value, last_attempt) in latest.items():
            lane = value.lane
            due_at = value.attempt.at if lane.due_at is None else lane.due_at
            row = (
                key,
                number,
                lane.lease_token,
                lane.cursor,
                lane.settled,
                lane.tries,
                due_at,
                last_attempt,
                lane.refusals,
            )
            if value.release or lane.closed is not None:
                moved.append((*row, lane.closed, value.release))
            else:
                held.append(row)
        self._db.write_rows("settle_held", held)
        self._db.write_rows("settle_moved", moved)

    def _release_lane(self, value: Release) -> None:
        lane, now = value
        self._db.write(
            "release_lane",
            {
                "run": self._key(lane.run_id),
                "number": lane.number,
                "token": lane.lease_token,
                "now": now,
            },
        )

    def _park_lanes(self, value: Park) -> None:
        self._db.write_rows(
            "park_lanes",
            [(self._key(lane.run_id), lane.number, lane.lease_token, value.due_at) for lane in value.lanes],
        )

    def _void_leases(self, now: int) -> None:
        self._db.write("void_leases", {"now": now})

    def _redeliver(self, value: replays.Redeliver) -> list[Lane]:
        key = self._key(value.run_id)
        return finish(replays.redeliver, self._rules, key, value, self._attempts_made()) if key else []

    def _sweep(self, limit: int) -> int:
        return sweep.sweep(self._db, limit, self._attempts_made())


def _each(write: Callable[[V], R]) -> Callable[[Sequence[V]], list[R]]:
    return lambda values: [write(value) for value in values]


def _rule(rule: Callable[..., Coroutine[Any, Any, R]], *session: Any) -> Callable[[Sequence[Any]], list[R]]:
    """A rule of `store/verbs` as a verb that writes."""
    return lambda values: [finish(rule, *session, value) for value in values]
