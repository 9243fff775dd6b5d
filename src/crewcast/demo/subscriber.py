"""A subscriber as its developer would write one: it verifies, validates and keeps what it is sent."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker

from crewcast.contract.asyncapi import payload_schema
from crewcast.webhooks import Delivery, SignatureError, verify

SCHEMAS = {"/task": "TaskCompletedPayload", "/step": "StepEventPayload", "/crew": "CrewCompletedPayload"}


@dataclass(slots=True)
class Received:
    """What one URL was sent: each delivery in the order it came, and what was wrong with any."""

    deliveries: list[Delivery] = field(default_factory=list)
    bad_signatures: list[str] = field(default_factory=list)
    bad_schemas: list[str] = field(default_factory=list)

    @property
    def first_deliveries(self) -> list[Delivery]:
        seen: set[str] = set()
        return [one for one in self.deliveries if not (one.id in seen or seen.add(one.id))]  # type: ignore[func-returns-value]

    @property
    def in_order(self) -> bool:
        """Whether the first deliveries have the numbers 1, 2, 3... of their URL, in this order."""
        return [one.lane_seq for one in self.first_deliveries] == list(
            range(1, len(self.first_deliveries) + 1)
        )


class Subscriber:
    """Listens on a free loopback port; `/task`, `/step` and `/crew` are its webhooks."""

    def __init__(self) -> None:
        self.secret = ""  # known once the server has made its keys
        self.received = {path: Received() for path in SCHEMAS}
        self.crew_event = threading.Event()
        self._lock = threading.Lock()
        self._validators = {
            path: Draft202012Validator(payload_schema(name), format_checker=FormatChecker())
            for path, name in SCHEMAS.items()
        }
        subscriber = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status = subscriber.take(self.path, dict(self.headers), body)
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.origin = f"http://127.0.0.1:{self._http.server_port}"

    @contextmanager
    def listening(self) -> Iterator["Subscriber"]:
        thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            self._http.server_close()
            thread.join()

    def take(self, path: str, headers: dict[str, str], body: bytes) -> int:
        """The status to answer: 204 for what is accepted, 401 for what is not signed by the server."""
        with self._lock:
            received = self.received.get(path)
            if received is None:
                return 404
            try:
                delivery = verify(self.secret, headers, body)
            except SignatureError as e:
                received.bad_signatures.append(str(e))
                return 401
            errors = sorted(error.message for error in self._validators[path].iter_errors(delivery.payload))
            received.bad_schemas.extend(errors)
            received.deliveries.append(delivery)
            if path == "/crew":
                self.crew_event.set()
            return 204
