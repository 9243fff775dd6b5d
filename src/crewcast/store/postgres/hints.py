"""Who is told of a commit: this node's listeners at once, those of other nodes by NOTIFY a few milliseconds later."""

import asyncio
import json
import logging
import secrets
from collections.abc import Callable, Iterable
from contextlib import suppress

import asyncpg

from crewcast.store.hints import Hinted, Listeners
from crewcast.store.postgres.connection import AWAY, Database
from crewcast.store.postgres.session import Connection, PostgresSession
from crewcast.store.protocol import Hint, HintListener

log = logging.getLogger("crewcast.store")

CHANNEL = "crewcast"
LISTENER = "crewcast hints"
COUNT_EVERY = 1.0  # seconds; a node that has just come polls meanwhile
# Seconds between two NOTIFYs after few hints and after many: they take a lock of the whole server, so under load many
# go in one.
PACE, SLOW_PACE = 0.001, 0.008
MANY = 16
MOST_BYTES = 7000  # of a payload; PostgreSQL takes 8000
RETURN_AFTER = 0.5


class Hints:
    """Hints are hurried news, never the only ones: what gets lost while PostgreSQL is away is found by polling."""

    def __init__(self, database: Database, foreign: Callable[[Hint, str], None]) -> None:
        """`foreign` hears first of what other nodes have committed."""
        self._database = database
        self._foreign = foreign
        self._listeners = Listeners()
        self._alone = False
        self.counts = 0  # how often it has asked how many nodes hear hints
        self._sender = secrets.token_hex(4)
        self._unsaid: dict[Hinted, None] = {}
        self._some = asyncio.Event()
        self._all_said = asyncio.Event()
        self._tasks = [
            asyncio.create_task(self._speak(), name="crewcast-notify"),
            asyncio.create_task(self._hear(), name="crewcast-listen"),
        ]
        self.heard = asyncio.Event()  # it listens

    def listen(self, listener: HintListener) -> Callable[[], None]:
        return self._listeners.listen(listener)

    def tell(self, hints: Iterable[Hinted]) -> None:
        for hint, about in dict.fromkeys(hints):
            self._listeners.call(hint, about)
            if not self._alone:
                self._unsaid[hint, about] = None
        if self._unsaid:
            self._some.set()
            self._all_said.clear()

    async def close(self) -> None:
        """Says what is unsaid, if that goes quickly."""
        if self._unsaid:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._all_said.wait(), 1.0)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- to others --------------------------------------------------------------------------

    async def _speak(self) -> None:
        connection: Connection | None = None
        try:
            while True:
                await self._some.wait()
                said: list[str] = []
                try:
                    if connection is None or connection.is_closed():
                        connection = await self._database.connect()
                    said = self._next()
                    payload = json.dumps([self._sender, *said], ensure_ascii=True, separators=(",", ":"))
                    await PostgresSession(connection).all("notify", {"channel": CHANNEL, "hints": payload})
                except (asyncpg.PostgresError, *AWAY) as e:
                    self._database.error(e)
                    self._unsaid.clear()  # others find it by polling
                    await asyncio.sleep(RETURN_AFTER)
                if not self._unsaid:
                    self._some.clear()
                    self._all_said.set()
                await asyncio.sleep(PACE if len(said) < MANY else SLOW_PACE)
        finally:
            if connection is not None:
                connection.terminate()

    def _next(self) -> list[str]:
        """As many as go in one payload, each as `hint:about`."""
        said: list[str] = []
        room = MOST_BYTES
        for hint, about in tuple(self._unsaid):
            text = f"{hint.value}:{about}"
            size = 6 * len(text) if not text.isascii() else len(text) + 3
            if room < size <= MOST_BYTES:
                break
            del self._unsaid[hint, about]
            if size <= room:  # else no payload has room for it
                said.append(text)
                room -= size
        return said

    # --- from others ------------------------------------------------------------------------

    async def _hear(self) -> None:
        while True:
            connection: Connection | None = None
            try:
                connection = await self._database.connect(LISTENER)
                ended = asyncio.Event()
                connection.add_termination_listener(lambda _, ended=ended: ended.set())
                await connection.add_listener(CHANNEL, self._notified)
                self.heard.set()
                db = PostgresSession(connection)
                while not ended.is_set():
                    # It is found out here too that a connection died without a word.
                    ((listeners,),) = await db.all("listeners", {"name": LISTENER})
                    self._alone = listeners <= 1
                    self.counts += 1
                    with suppress(TimeoutError):
                        await asyncio.wait_for(ended.wait(), COUNT_EVERY)
                log.debug(
                    "the connection for hints to PostgreSQL ended; until it is back others are heard by polling"
                )
            except (asyncpg.PostgresError, *AWAY) as e:
                self._database.error(e)
            finally:
                self.heard.clear()
                self._alone = False
                if connection is not None:
                    connection.terminate()
            await asyncio.sleep(RETURN_AFTER)

    def _notified(self, _connection: object, _pid: int, _channel: str, payload: str) -> None:
        try:
            sender, *said = json.loads(payload)
            if sender == self._sender:
                return
            hints = [text.split(":", 1) for text in said]
            for word, about in hints:
                hint = Hint(word)
                self._foreign(hint, about)
                self._listeners.call(hint, about)
        except (ValueError, AttributeError) as e:
            log.warning("a hint of another node cannot be read (%s): is it of another version?", e)
