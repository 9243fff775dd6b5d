"""A store that is out of reach for a while, as a database is that restarts."""

import asyncio
from collections.abc import Callable
from typing import Any

from crewcast.core.errors import StoreError


class Shaky:
    """Any store. While it is `down` every verb fails and does nothing; a verb in `deaf` does its work once, and its
    answer is lost. `asked` has the verbs in their order.
    """

    def __init__(self, store: Any) -> None:
        self.real = store
        self.down = False
        self.deaf: set[str] = set()
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self.real, name)
        if name in ("listen", "close"):
            return verb

        def ask(*args: Any, **named: Any) -> Any:
            return asyncio.ensure_future(self._ask(name, verb, *args, **named))

        return ask

    async def _ask(self, name: str, verb: Callable[..., Any], *args: Any, **named: Any) -> Any:
        self.asked.append(name)
        if self.down:
            raise StoreError("the store is out of reach")
        answer = await verb(*args, **named)
        if name in self.deaf:
            self.deaf.discard(name)
            raise StoreError("the connection was lost")
        return answer
