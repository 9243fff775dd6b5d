"""Connections to one database, transactions whose outcome is always known, and the words for what goes wrong."""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any, NamedTuple, Self, TypeVar
from urllib.parse import urlsplit

import asyncpg

from crewcast.core.errors import StoreAway, StoreError, StoreFull, StoreUnusable
from crewcast.store.postgres.session import SCHEMA, Connection, PostgresSession
from crewcast.store.postgres.trouble import Trouble

log = logging.getLogger("crewcast.store")

R = TypeVar("R")

OLDEST = 140000  # DETACH PARTITION CONCURRENTLY
MOST_CONNECTIONS = 8  # of a node, beside those of its two writers, its listener and its notifier
CONNECT_WITHIN = 5.0
ANSWER_WITHIN = 30.0
ASK_AGAIN = 0.2
TRIES = 20  # of a transaction that others were in the way of

# A stopped process holds its locks: PostgreSQL ends its transaction before its leases lapse. Plans are made once
# and go along indexes: statistics of tables that are empty at noon and full at one mislead any other.
SETTINGS = {
    "application_name": "crewcast",
    "search_path": SCHEMA,
    "timezone": "UTC",
    "synchronous_commit": "on",
    "default_transaction_isolation": "read committed",
    "idle_in_transaction_session_timeout": "10000",
    "lock_timeout": "15000",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_bitmapscan": "off",
    "jit": "off",
}

AWAY = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the driver's state and the connection's came apart, as while it is being lost
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # it stops, starts or crashed
    asyncpg.TooManyConnectionsError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,  # a standby: after a failover the name leads elsewhere soon
)
IN_THE_WAY = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError, asyncpg.LockNotAvailableError)


class _Connection(asyncpg.Connection):  # type: ignore[misc]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.mark = secrets.token_hex(8)  # by which its last commit is known

    def get_reset_query(self) -> str:
        """None: nothing here changes a session, and it would be a round trip at each return to the pool."""
        return ""


class Database:
    """A pool of connections that come back by themselves after PostgreSQL was away."""

    def __init__(self, url: str) -> None:
        self.shown = shown(url)
        self.trouble = Trouble(self.shown)
        self._url = url
        self._pool: asyncpg.Pool | None = None
        self._closed = False
        self._under_way = 0
        self._idle = asyncio.Event()
        self._commits = count(1)

    @classmethod
    async def open(cls, url: str) -> Self:
        """Raises StoreUnusable for a database that cannot be reached or is too old."""
        database = cls(url)
        try:
            database._pool = await asyncpg.create_pool(
                url,
                min_size=0,  # else the pool keeps trying to have one, and logs a traceback each time
                max_size=MOST_CONNECTIONS,
                connection_class=_Connection,
                server_settings=SETTINGS,
                timeout=CONNECT_WITHIN,
                command_timeout=ANSWER_WITHIN,
                statement_cache_size=300,
                max_inactive_connection_lifetime=300.0,
            )
            version = int(await database._pool.fetchval("SHOW server_version_num"))
        except (ValueError, asyncpg.PostgresError, *AWAY) as e:
            await database.close()
            raise StoreUnusable(
                f"PostgreSQL at {database.shown} cannot be used: {told(e)}. Check database_url, and that the database is there."
            ) from e
        if version < OLDEST:
            await database.close()
            raise StoreUnusable(
                f"PostgreSQL at {database.shown} is version {version // 10000}; Crewcast needs {OLDEST // 10000} or newer."
            )
        return database

    async def close(self) -> None:
        """Refuses what comes, waits for what is under way, then lets go."""
        self._closed = True
        if self._under_way:
            self._idle.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), ANSWER_WITHIN)
        if self._pool is not None:
            try:
                await asyncio.wait_for(self._pool.close(), 5.0)
            except (TimeoutError, *AWAY):
                self._pool.terminate()

    async def connect(
        self, name: str = "crewcast", answer_within: float | None = ANSWER_WITHIN
    ) -> Connection:
        """A connection outside the pool, for one who keeps it. Raises one of AWAY."""
        return await asyncpg.connect(
            self._url,
            connection_class=_Connection,
            server_settings=SETTINGS | {"application_name": name},
            timeout=CONNECT_WITHIN,
            command_timeout=answer_within,
            statement_cache_size=300,
        )

    async def read(self, read: Callable[[PostgresSession], Awaitable[R]]) -> R:
        """One statement or a few, without a transaction of their own. Raises StoreError."""
        try:
            with self._busy():
                async with self._pool_of().acquire() as connection:
                    found = await read(PostgresSession(connection))
        except (asyncpg.PostgresError, *AWAY) as e:
            raise self.error(e) from e
        self.trouble.answered(wrote=False)
        return found

    async def transaction(self, work: Callable[[PostgresSession], Awaitable[R]]) -> R:
        """What `work` returned, once it is committed; what others were in the way of is done again.

        Raises StoreError, and then nothing of it is written: a commit that was not answered is asked for.
        """
        with self._busy():
            for _ in range(TRIES):
                try:
                    async with self._pool_of().acquire() as connection:
                        return await self.commit(connection, work)
                except IN_THE_WAY as e:
                    last: Exception = e
                except (asyncpg.PostgresError, *AWAY) as e:
                    raise self.error(e) from e
            raise self.error(last) from last

    @contextmanager
    def _busy(self) -> Iterator[None]:
        if self._closed:
            raise StoreUnusable("the store is closed")
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    def _pool_of(self) -> asyncpg.Pool:
        assert self._pool is not None
        return self._pool

    async def commit(self, connection: Connection, work: Callable[[PostgresSession], Awaitable[R]]) -> R:
        """The same on a connection, once. Raises the driver's own errors for what was not written."""
        begun = False
        try:
            await connection.execute("BEGIN")
            begun = True
            db = PostgresSession(connection)
            result = await work(db)
            made = _Commit(connection.mark, next(self._commits))
            row = await db.first("note_commit", made._asdict())
            number = None if row is None else row[0]
        except BaseException as e:
            if begun and not isinstance(e, AWAY) and not connection.is_closed():
                await connection.execute("ROLLBACK")
            else:
                _drop(connection)
            raise
        try:
            await connection.execute("COMMIT")
        except asyncio.CancelledError:
            _drop(connection)
            raise
        except (asyncpg.PostgresError, *AWAY):
            _drop(connection)
            if number is None or not await self._was_committed(made, number):
                raise
        self.trouble.answered(wrote=number is not None)
        return result

    async def _was_committed(self, made: "_Commit", number: str) -> bool:
        """Whether a transaction was committed whose COMMIT was not answered. As long as nobody can tell, it is asked
        again: to guess would lose an event or tell it twice.

        `number` is PostgreSQL's own. It tells whether the transaction goes on, and nothing else: after a crash the
        numbers of what was lost are given to others, and theirs are committed.
        """
        log.debug("PostgreSQL did not answer a commit; it is asked what became of it")
        while not self._closed or self._under_way:
            try:
                # Who asks has let go of its own connection, so there is always one to ask on.
                async with self._pool_of().acquire() as connection:
                    db = PostgresSession(connection)
                    if not await _goes_on(db, number):
                        row = await db.first("last_commit", {"mark": made.mark})
                        return row is not None and row[0] == made.serial
                    await db.all("end_transaction", {"number": number})
            except (asyncpg.PostgresError, *AWAY) as e:
                self.error(e)
            await asyncio.sleep(ASK_AGAIN)
        raise StoreUnusable("the store was closed before PostgreSQL told what became of a write")

    def error(self, error: BaseException) -> StoreError:
        """What the operator does next. The log tells of an outage, or of a lack of room, when the first one meets it."""
        if isinstance(error, StoreError):
            return error
        told_as = self._named(error)
        self.trouble.meet(told_as)
        return told_as

    def _named(self, error: BaseException) -> StoreError:
        said = told(error)
        if isinstance(error, asyncpg.DiskFullError):
            return StoreFull(
                f"PostgreSQL at {self.shown} has no room: {said}. Nothing was written. Make room; no restart is needed."
            )
        if is_away(error):
            return StoreAway(
                f"PostgreSQL at {self.shown} does not answer: {said}. Nothing was written; it is tried again."
            )
        return StoreError(f"PostgreSQL at {self.shown} refused: {said}. Nothing was written.")


class _Commit(NamedTuple):
    """A transaction as the database knows it once it is committed: the last of a connection."""

    mark: str
    serial: int


async def _goes_on(db: PostgresSession, number: str) -> bool:
    try:
        row = await db.first("transaction_status", {"number": number})
    except asyncpg.InvalidParameterValueError:
        return False  # it was lost in a crash, or a standby that took over never heard of it
    return row is not None and row[0] == "in progress"


def is_away(error: BaseException) -> bool:
    """Whether to try again is all that can be done. The driver's own refusal of a value is an InterfaceError too."""
    return isinstance(error, AWAY) and not isinstance(error, ValueError)


def _drop(connection: Connection) -> None:
    """Lets go of a connection in an unknown state; the pool makes another."""
    if not connection.is_closed():
        connection.terminate()


def told(error: BaseException) -> str:
    """The first line: PostgreSQL's details may hold payloads."""
    lines = str(error).splitlines()
    return f"{lines[0]} ({type(error).__name__})" if lines else type(error).__name__


def shown(url: str) -> str:
    """Where a database is, without its password and parameters."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "database_url"
    return f"{parts.hostname or 'localhost'}{port}{parts.path}"
