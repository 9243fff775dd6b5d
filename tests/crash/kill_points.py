"""The moments between append and settle at which a node can be killed: its real parts, watched at their seams.

Nothing of this is in the product. A moment is named, and `watch` calls `at(name)` whenever it is passed.
"""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import Any

from crewcast.core.outcome import Outcome
from crewcast.core.url import Target
from crewcast.dispatch.connection import Connection
from crewcast.dispatch.sender import Sender
from crewcast.dispatch.transport import Headers
from crewcast.store.postgres import PostgresStore
from crewcast.store.postgres.writer import Writer
from crewcast.store.protocol import Settlement, Store
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
# Of a write: handed to the store's writer; before BEGIN; before COMMIT; after it, and nobody knows yet; the
# dispatcher was given its hint, and the caller does not know yet.
STAGES = ("queued", "taken", "written", "committed", "told")
SENDING = ("posting", "sent", "answered")  # before the POST; its bytes left; the sender has the outcome
# The subscriber has the request and does not answer: this one is for whoever has the subscriber.
RECEIVED = "received"
POINTS = (*(f"{write} {stage}" for write in WRITES for stage in STAGES), *SENDING, RECEIVED)
AROUND_COMMITS = (*(f"{write} {stage}" for write in WRITES for stage in ("written", "committed")), RECEIVED)

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


def watch(store: Store, at: At) -> None:
    """Calls `at` at each stage of each write of `store`: in the loop, or in the committer's thread."""
    if isinstance(store, PostgresStore):
        _watch_postgres(store, at)
    else:
        assert isinstance(store, SQLiteStore)
        _watch_sqlite(store, at)


def _watch_sqlite(store: SQLiteStore, at: At) -> None:
    committer = store.committer
    verbs: dict[Verb[Any, Any], str] = {
        getattr(store._writes, name): name for name in WRITES[:2] + WRITES[-2:]
    }
    taken: Sequence[Write] = ()

    def name_of(verb: Verb[Any, Any], value: Any) -> str | None:
        return _settlement(value) if isinstance(value, Settlement) else verbs.get(verb)

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


def _settlement(value: Settlement) -> str:
    return value.attempt.verdict.value if value.split is None else "split"


class _WatchedTransactions:
    """What `Database.commit` has of its connection."""

    def __init__(self, connection: Any, at: At) -> None:
        self._connection = connection
        self._at = at

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def execute(self, sql: str, *arguments: Any) -> Any:
        if sql == "COMMIT":
            self._at("written")
        answer = await self._connection.execute(sql, *arguments)
        if sql == "COMMIT":
            self._at("committed")
        return answer


def _watch_postgres(store: PostgresStore, at: At) -> None:
    writing: ContextVar[frozenset[str]] = ContextVar("writing", default=frozenset())

    def of(names: frozenset[str], stage: str) -> None:
        for name in names:
            at(f"{name} {stage}")

    commit = store.database.commit

    async def watched_commit(connection: Any, work: Any) -> Any:
        names = writing.get()
        of(names, "taken")
        return await commit(_WatchedTransactions(connection, lambda stage: of(names, stage)), work)

    store.database.commit = watched_commit  # type: ignore[method-assign]

    def watch_writer(writer: Writer[Any, Any], name_of: Callable[[Any], str]) -> None:
        put, transaction, committed = writer.put, writer._transaction, writer._committed

        def watched_put(value: Any) -> "asyncio.Future[Any]":
            future = put(value)
            at(f"{name_of(value)} queued")
            return future

        async def watched_transaction(values: Sequence[Any]) -> Any:
            writing.set(frozenset(map(name_of, values)))
            return await transaction(values)

        def watched_committed(values: Sequence[Any], results: Sequence[Any]) -> None:
            committed(values, results)
            of(frozenset(map(name_of, values)), "told")

        writer.put = watched_put  # type: ignore[method-assign]
        writer._transaction = watched_transaction  # type: ignore[method-assign]
        writer._committed = watched_committed

    def watched_verb(name: str, verb: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def watched(*arguments: Any, **named: Any) -> Any:
            at(f"{name} queued")
            token = writing.set(frozenset({name}))
            try:
                answer = await verb(*arguments, **named)
            finally:
                writing.reset(token)
            if answer:
                at(f"{name} told")
            return answer

        return watched

    watch_writer(store.appends, lambda _value: "append")
    watch_writer(
        store.settlements,
        lambda value: _settlement(value) if isinstance(value, Settlement) else "release_lane",
    )
    for name in ("claim_lanes", "redeliver"):
        setattr(store, name, watched_verb(name, getattr(store, name)))
