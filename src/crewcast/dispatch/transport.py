"""The seam between the dispatcher and the network: one method, and its fake."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from crewcast.core.outcome import Outcome
from crewcast.core.url import Target

Headers = Sequence[tuple[bytes, bytes]]


class Transport(Protocol):
    async def post(self, target: Target, headers: Headers, body: bytes) -> Outcome:
        """One attempt: POSTs `body` and says what came of it.

        Whatever the network or the subscriber does is an Outcome; nothing but a cancellation is raised.
        `headers` are those of the event: Host, Content-Length and the like are the transport's.
        """


@dataclass(frozen=True, slots=True)
class Sent:
    target: Target
    headers: Headers
    body: bytes


@dataclass(slots=True)
class FakeTransport:
    """Answers from a script: per URL (`origin` + `path`) outcomes in turn, then `otherwise`."""

    script: Mapping[str, Sequence[Outcome]] = field(default_factory=dict)
    otherwise: Outcome = field(default_factory=lambda: Outcome("ok", 200))
    sent: list[Sent] = field(default_factory=list)
    _left: dict[str, deque[Outcome]] = field(init=False)

    def __post_init__(self) -> None:
        self._left = {url: deque(outcomes) for url, outcomes in self.script.items()}

    async def post(self, target: Target, headers: Headers, body: bytes) -> Outcome:
        self.sent.append(Sent(target, headers, body))
        left = self._left.get(target.origin + target.path)
        return left.popleft() if left else self.otherwise
