"""The verbs that write, for the committer: the values of many callers, a handful of statements."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from msgspec.structs import replace

from crewcast.core.backoff import DAY
from crewcast.core.generation import Rotation, Rotations
from crewcast.core.lane import Lane, Verdict
from crewcast.core.run import Run
from crewcast.store.protocol import Created, IdempotencyKey, Settlement
from crewcast.store.sqlite import (
    appends,
    journal,
    nodes,
    origins,
    queue,
    replays,
    retention,
    reviews,
    rows,
    subscriptions,
)
from crewcast.store.sqlite.appends import Append
from crewcast.store.sqlite.claims import due_lanes
from crewcast.store.sqlite.committer import R, Unheld, V, Verb
from crewcast.store.sqlite.journal import Entries
from crewcast.store.sqlite.run_keys import RunKeys
from crewcast.store.sqlite.session import Session, Values

KEYS_KEPT_FOR = 1 * DAY


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


class Rotate(NamedTuple):
    origin: str
    now: int
    until: int


class Bind(NamedTuple):
    fingerprint: bytes
    replace: bool


class Writes:
    """Everything here runs in the committer's thread, inside its transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._db = Session(connection)
        self._keys = RunKeys(self._db)
        self._key = self._keys.of
        self._last_attempt: int | None = None
        self.create_run = Verb(0, _each(self._create_run))
        self.append = Verb(1, self._append)
        self.settle = Verb(2, self._settle, patient=True)
        self.release_lane = Verb(3, _each(self._release_lane))
        self.park_lanes = Verb(3, _each(self._park_lanes))
        self.redeliver = Verb(3, _each(self._redeliver))
        self.save_origin = Verb(3, _each(partial(origins.save, self._db)))
        self.reset_origin = Verb(3, _each(partial(origins.reset, self._db)))
        self.void_leases = Verb(3, _each(self._void_leases))
        self.adopt = Verb(3, _each(self._adopt))
        log = partial(appends.log, self._db, self._keys)
        self.decide = Verb(3, _each(partial(reviews.decide, self._db, self._keys, log)))
        self.remind = Verb(3, _each(partial(reviews.remind, self._db, self._keys, log)))
        self.conclude = Verb(3, _each(partial(reviews.conclude, self._db, self._keys, log)))
        self.request_stop = Verb(3, _each(partial(reviews.request_stop, self._db, self._keys)))
        self.renew_runs = Verb(4, _each(self._renew_runs))
        self.renew_lanes = Verb(4, _each(self._renew_lanes))
        self.expire = Verb(4, _each(partial(retention.expire, self._db, self._keys)))
        self.delete_run = Verb(4, _each(partial(retention.hide, self._db, self._keys)))
        self.rotate = Verb(4, _each(self._rotate))
        self.bind_key = Verb(4, _each(self._bind_key))
        self.beat = Verb(4, _each(partial(nodes.beat, self._db)))
        self.leave = Verb(4, _each(partial(nodes.leave, self._db)))
        self.claim_runs = Verb(5, _each(partial(queue.claim, self._db)))
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
                return Created(earlier[0], replayed=True, conflict=earlier[1] != key.fingerprint)
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
        self._db.write(
            "create_kickoff",
            {
                "run": number,
                "inputs": run.inputs,
                "meta": run.meta,
                "options": run.options,
                "token": run.token,
                "max_attempts": run.max_attempts,
                "timeout": run.timeout,
            },
        )
        self._db.write_rows("create_lanes", [rows.lane_row(number, lane) for lane in lanes])
        if entries:
            journal.write(self._db, [(number, entries)])
        return Created(run.id)

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
        return appends.append(self._db, self._keys, values)

    # --- lanes ------------------------------------------------------------------------------

    def _claim_lanes(self, value: ClaimLanes) -> list[Lane]:
        limit, token, now, until, busy, per_origin = value
        lanes = due_lanes(self._db, limit, token, now, busy, per_origin)
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
            if value.attempt.verdict is not Verdict.ACCEPTED or value.lane.replay_of is not None:
                self._consequences(value, made)
        return [True] * len(values)

    def _consequences(self, value: Settlement, made: int) -> None:
        """What an attempt changes beside its lane."""
        verdict = value.attempt.verdict
        if verdict is Verdict.ACCEPTED:
            self._redelivered(value, made)
        elif verdict is not Verdict.RETRY:
            self._bury(value, made)
        elif value.split is not None:
            self._split(value.lane, value.split)

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

    def _bury(self, value: Settlement, made: int) -> None:
        lane, attempt = value.lane, value.attempt
        where = {"run": self._key(lane.run_id), "lane": lane.number, "at": attempt.at, "attempt": made}
        reason = lane.closed or attempt.outcome.kind
        self._db.write("give_up", {**where, "seq": attempt.seq, "reason": reason, "lane_seq": lane.settled})
        if attempt.verdict is Verdict.CLOSED:
            self._db.write("give_up_rest", where)

    def _redelivered(self, value: Settlement, made: int) -> None:
        lane = value.lane
        which = {"run": self._key(lane.run_id), "seq": value.attempt.seq, "replayed": lane.replay_of}
        self._db.write("redelivered", {**which, "attempt": made})

    def _split(self, lane: Lane, apart: Lane) -> None:
        key = self._key(lane.run_id)
        ((number,),) = self._db.all("last_lane", {"run": key})
        ((born, ranged),) = self._db.all("born", {"run": key, "number": lane.number})
        made = replace(apart, number=number + 1, ranged=bool(ranged))
        self._db.write_rows("create_lanes", [rows.lane_row(key, made, born if apart.dead_only else None)])
        subscriptions.mark_ranged(self._db, key, [made])

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
        return replays.redeliver(self._db, key, value, self._attempts_made()) if key else []

    def _sweep(self, limit: int) -> int:
        return retention.sweep(self._db, limit, self._attempts_made())

    # --- rotation ---------------------------------------------------------------------------

    def _rotate(self, value: Rotate) -> Rotation | None:
        before = Rotations(Rotation(*row) for row in self._db.all("rotations", {}))
        new = before.next(value.origin, value.now, value.until)
        if new is not None:
            self._db.write(
                "add_rotation", {"number": new.number, "origin": new.origin, "at": new.at, "until": new.until}
            )
        return new

    def _bind_key(self, value: Bind) -> bytes:
        self._db.write("bind_master_key", {"id": value.fingerprint, "replace": value.replace})
        ((noted,),) = self._db.all("master_key", {})
        return bytes(noted)


def _each(write: Callable[[V], R]) -> Callable[[Sequence[V]], list[R]]:
    return lambda values: [write(value) for value in values]
