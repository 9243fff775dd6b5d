"""One HTTP/1.1 connection to a subscriber: one request at a time, the answer read with suspicion."""

import asyncio
import select
import ssl
from collections.abc import Callable
from typing import Protocol, cast

import httptools

from crewcast.core.outcome import Outcome
from crewcast.dispatch import response
from crewcast.dispatch.limits import SenderLimits


class Keeper(Protocol):
    """Who owns connections and watches their deadlines."""

    limits: SenderLimits
    monotonic: Callable[[], float]
    now: Callable[[], int]

    def opened(self, connection: "Connection") -> None: ...
    def busy(self, connection: "Connection") -> None: ...
    def free(self, connection: "Connection", now: float) -> None: ...
    def dropped(self, connection: "Connection") -> None: ...
    def lost(self, connection: "Connection") -> None: ...


class Connection(asyncio.Protocol):
    """`deadline` and `phase` say what the request in flight is waiting for, `idle` is its origin's shelf.

    The parser gets no header callback: its heads are kept as they came and searched only when the
    answer is not a success. For the usual answer no header becomes a Python object.
    """

    __slots__ = (
        "_body",
        "_body_size",
        "_complete",
        "_dirty",
        "_head",
        "_interim",
        "_keep",
        "_keeper",
        "_loop",
        "_parser",
        "_paused",
        "_readable",
        "_received",
        "_reused",
        "_started",
        "_status",
        "_transport",
        "_until",
        "_wait",
        "_waiter",
        "deadline",
        "idle",
        "idle_since",
        "phase",
    )

    def __init__(self, keeper: Keeper, idle: "list[Connection]") -> None:
        self._keeper = keeper
        self._wait = keeper.limits.response
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Outcome | None] | None = None
        self._reused = self._paused = False
        self.idle = idle
        self.idle_since = 0.0
        self.deadline = 0.0
        self.phase = ""

    def exchange(
        self, message: bytes, started: float, now: float, until: float
    ) -> asyncio.Future[Outcome | None]:
        """Writes the request; the future has what came of it.

        It has None if the connection had been used before and ended without a byte of an answer: the
        subscriber closed it while the request was on its way, and a fresh connection may tell more.
        """
        self._waiter = waiter = self._loop.create_future()
        self._started = started
        self._until = until
        self._status = self._interim = self._received = self._body_size = 0
        self._head = self._body = b""
        self._complete = self._dirty = False
        self.phase = "response"
        self.deadline = min(until, now + self._wait)
        self._keeper.busy(self)
        self._transport.write(message)  # type: ignore[union-attr]  # may call pause_writing
        return waiter

    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def is_quiet(self) -> bool:
        """Whether the connection is open and nothing has come that was not asked for.

        The loop may not have read it yet: a second answer to the last request, or the end of the
        connection. Whatever it is, the next request has an answer of its own. What the subscriber
        sends after this look cannot be told from an answer; HTTP/1.1 has no way.
        """
        return self.is_open() and not self._readable.poll(0)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Ends the connection at once. Not for one with a request in flight: see `leave` and `fail`."""
        if self._transport is not None:
            self._transport.abort()

    def leave(self, waiter: "asyncio.Future[Outcome | None]") -> None:
        """Who waits for `waiter` was cancelled: its answer must not answer the next request.

        If the answer came in the same moment, the connection is free, or at work for somebody else.
        """
        if self._waiter is waiter:
            self._end(None)

    def fail(self, kind: str, detail: str) -> None:
        if self._status:
            detail += f"; the answer had begun with status {self._status}"
        took = int((self._keeper.monotonic() - self._started) * 1_000_000)
        self._end(Outcome(kind, duration=took, detail=detail))

    def expire(self) -> None:
        """The deadline has passed."""
        said = {
            "write": "the subscriber did not read the request",
            "response": "no answer",
            "total": "the answer did not end",
        }
        waited = self.deadline - self._started
        self.fail(f"timeout:{self.phase}", f"{said[self.phase]} within {waited:.1f} s")

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        # Paused means: not all is written. 1, since TLS transports pause at and not above the limit.
        self._transport.set_write_buffer_limits(high=1, low=0)
        self._readable = select.poll()
        self._readable.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        self._keeper.opened(self)

    def pause_writing(self) -> None:
        self._paused = True
        if self._waiter is not None and self.phase == "response":
            self.phase = "write"
            self.deadline = min(self._until, self._keeper.monotonic() + self._keeper.limits.write)

    def resume_writing(self) -> None:
        self._paused = False
        if self._waiter is not None and self.phase == "write":
            self.phase = "response"
            self.deadline = min(self._until, self._keeper.monotonic() + self._wait)

    def data_received(self, data: bytes) -> None:
        if self._waiter is None:
            self.abort()  # an answer to nothing: whatever it is, it must not answer the next request
            return
        if not self._received:
            self.phase = "total"
            self.deadline = self._until
        self._received += len(data)
        in_head = not self._status
        if in_head:
            self._head = self._head + data if self._head else data
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as e:
            if self._complete:
                self._dirty = True
            else:
                self.fail("protocol", f"the answer is not valid HTTP: {e.__context__ or e}")
                return
        except httptools.HttpParserUpgrade:
            self.fail("protocol", "the answer switches protocols, which was not asked for")
            return
        if in_head and len(self._head) > self._keeper.limits.max_head and not self._fits():
            return
        if self._complete:
            self._succeed(reusable=self._keep and not self._dirty and not self._paused)
        else:
            self._check_size()

    def eof_received(self) -> None:
        self._ended(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended(exc)
        self._keeper.lost(self)
        self._transport = None
        del self._parser  # it knows us

    # What the parser calls

    def on_message_begin(self) -> None:
        self._dirty = self._complete

    def on_headers_complete(self) -> None:
        status: int = self._parser.get_status_code()
        if self._complete:
            return
        if status < 100:
            raise ValueError(f"status {status:03}")
        if status < 200:
            self._interim += 1
            return
        self._status = status
        self._keep = self._parser.should_keep_alive()

    def on_body(self, data: bytes) -> None:
        if not self._complete:
            self._body_size += len(data)
            if len(self._body) < response.EXCERPT_BYTES:
                self._body += data[: response.EXCERPT_BYTES]

    def on_message_complete(self) -> None:
        self._complete = self._status != 0

    # How a request ends

    def _fits(self) -> bool:
        """Of what was read, keeps the head alone, which may have come together with much of the body."""
        most = self._keeper.limits.max_head
        end = response.head_end(self._head, self._interim) if self._status else len(self._head)
        if end > most:
            self.fail("header_too_large", f"the head of the answer has more than {most} bytes")
            return False
        self._head = self._head[:end]
        return True

    def _check_size(self) -> None:
        limits = self._keeper.limits
        if self._interim > limits.max_interim:
            self.fail("protocol", f"more than {limits.max_interim} interim answers (1xx)")
        elif self._status and (
            self._body_size >= limits.max_response or self._received > limits.max_head + limits.max_response
        ):
            # The status is known, and that is what counts. The rest is not worth reading.
            self._succeed(reusable=False)

    def _ended(self, exc: Exception | None) -> None:
        if self._waiter is None:
            self._keeper.dropped(self)
        elif exc is None and self._status and not response.is_framed(self._final_head()):
            self._succeed(reusable=False)
        elif self._reused and not self._received:
            self._end(None)
        elif exc is None:
            self.fail("closed", "the connection was closed before the end of the answer")
        elif isinstance(exc, ssl.SSLError):
            self.fail("tls", exc.reason or "TLS failed")
        else:
            self.fail("reset", f"the connection broke before the end of the answer ({type(exc).__name__})")

    def _succeed(self, *, reusable: bool) -> None:
        """There is an answer, whatever its status."""
        status = self._status
        now = self._keeper.monotonic()
        took = int((now - self._started) * 1_000_000)
        if 200 <= status < 300:
            outcome = Outcome("ok", status, None, took, response.excerpt(self._body))
        else:
            wait = response.retry_after(self._final_head(), self._keeper.now())
            outcome = Outcome(f"status:{status}", status, wait, took, response.excerpt(self._body))
        if reusable:
            waiter, self._waiter = self._waiter, None
            self._reused = True
            self._head = self._body = b""
            self._keeper.free(self, now)
            if not waiter.done():  # type: ignore[union-attr]
                waiter.set_result(outcome)  # type: ignore[union-attr]
        else:
            self._end(outcome)

    def _end(self, outcome: Outcome | None) -> None:
        waiter, self._waiter = self._waiter, None
        self._head = self._body = b""
        if waiter is not None and not waiter.done():
            waiter.set_result(outcome)
        self._keeper.dropped(self)
        if self._transport is not None:
            self._transport.abort()

    def _final_head(self) -> bytes:
        return response.final_head(self._head, self._interim)
