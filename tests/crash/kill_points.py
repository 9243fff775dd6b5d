"""The moments between append and settle at which a node can be killed: its real parts, watched at their seams.

Nothing of this is in the product. A moment is named, and `watch` calls `at(name)` whenever it is passed.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from crewcast.core.outcome import Outcome
from crewcast.core.url import Target
from crewcast.dispatch.connection import Connection
from crewcast.dispatch.sender import Sender
from crewcast.dispatch.transport import Headers
from crewcast.store.protocol import Settlement
from crewcast.store.sqlite import SQLiteStore
from crewcast.store.sqlite.committer import Verb, Write

# A settlement is named by what it settles.
WRITES = (
    "append",
    "claim_lanes",
    "accepted",
    "retry",
    "split",
    "gave_up",
    "closed",
    "release_lane",
    "redeliver",
)
# Of a write: handed to the committer; before BEGIN; before COMMIT; after it, and nobody knows yet; the
# dispatcher was given its hint, and the caller does not know yet.
STAGES = ("queued", "taken", "written", "committed", "told")
SENDING = ("posting", "sent", "answered")  # before the POST; its bytes left; the sender has the outcome
# The subscriber has the request and does not answer: this one is for whoever has the subscriber.
RECEIVED = "received"
POINTS = (*(f"{write} {stage}" for write in WRITES for stage in STAGES), *SENDING, RECEIVED)

At = Callable[[str], None]


class WatchedSender:
    """The real sender; `mark` is a header that tells the subscriber which node sends."""

    def __init__(self, sender: Sender, mark: tuple[bytes, bytes], at: At) -> None:
        self._sender = sender
        self._mark = mark
        self._at = at
        exchange = Connection.exchange

        def watched(connection: Connection, *arguments: Any) -> "asyncio.Future[Outcome | None]":
            waiter = exchange(connection, *arguments)
            loop = asyncio.get_running_loop()
            # The loop writes at the end of its turn.
            loop.call_soon(loop.call_soon, at, "sent")
            return waiter

        Connection.exchange = watched  # type: ignore[method-assign, assignment]

    async def post(self, target: Target, headers: Headers, body: bytes) -> Outcome:
        self._at("posting")
        outcome = await self._sender.post(target, [*headers, self._mark], body)
        self._at("answered")
        return outcome


class _WatchedConnection:
    """What the committer has of its connection."""

    def __init__(self, connection: sqlite3.Connection, at: At) -> None:
        self._connection = connection
        self._at = at

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    @property
    def total_changes(self) -> int:
        return self._connection.total_changes

    def execute(self, sql: str) -> None:
        if sql == "COMMIT":
            self._at("written")
        self._connection.execute(sql)
        if sql == "COMMIT":
            self._at("committed")


def watch(store: SQLiteStore, at: At) -> None:
    """Calls `at` at each stage of each write of `store`: in the loop, or in the committer's thread."""
    committer = store.committer
    verbs: dict[Verb[Any, Any], str] = {
        getattr(store._writes, name): name for name in WRITES[:2] + WRITES[-2:]
    }
    taken: Sequence[Write] = ()

    def name_of(verb: Verb[Any, Any], value: Any) -> str | None:
        if isinstance(value, Settlement):
            return value.attempt.verdict.value if value.split is None else "split"
        return verbs.get(verb)

    def of(writes: Sequence[Write], stage: str) -> None:
        for name in {name_of(write.verb, write.value) for write in writes} - {None}:
            at(f"{name} {stage}")

    put, transaction, committed = committer.put, committer._transaction, committer._committed

    def watched_put(verb: Verb[Any, Any], value: Any) -> "asyncio.Future[Any]":
        future = put(verb, value)
        if name := name_of(verb, value):
            at(f"{name} queued")
        return future

    def watched_transaction(writes: list[Write], *, together: bool) -> None:
        nonlocal taken
        taken = writes
        of(writes, "taken")
        transaction(writes, together=together)

    def watched_committed(writes: list[Write]) -> None:
        committed(writes)
        of(writes, "told")

    committer._db = _WatchedConnection(committer._db, lambda stage: of(taken, stage))  # type: ignore[assignment]
    committer.put = watched_put  # type: ignore[method-assign]
    committer._transaction = watched_transaction  # type: ignore[method-assign]
    committer._committed = watched_committed
