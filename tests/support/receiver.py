"""A webhook receiver that keeps every request as it came and answers as the test says."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from jsonschema import Draft202012Validator, FormatChecker

from crewcast.contract.asyncapi import payload_schema
from crewcast.webhooks import Delivery, verify

SCHEMAS = {
    "step": "StepEventPayload",
    "task": "TaskCompletedPayload",
    "crew": "CrewCompletedPayload",
    "human_input": "HumanInputPayload",
}
URL_FIELDS = {"step": "stepWebhookUrl", "task": "taskWebhookUrl", "crew": "crewWebhookUrl"}
VALIDATORS = {
    channel: Draft202012Validator(payload_schema(name), format_checker=FormatChecker())
    for channel, name in SCHEMAS.items()
}


@dataclass(frozen=True)
class Request:
    path: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def event_id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def seq(self) -> int:
        return int(self.headers["crewcast-run-seq"])


Answering = Callable[[Request, int], int]


class Receiver:
    """Listens on a free loopback port. `answer(request, n)` gives the status for the n-th request (from 1)."""

    def __init__(self, answer: Answering = lambda request, n: 204, port: int = 0) -> None:
        self.requests: list[Request] = []
        self.invalid: list[str] = []
        self.answer = answer
        self._changed = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                status = receiver._take(Request(self.path, headers, body, time.monotonic()))
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True
            request_queue_size = 128

            def handle_error(self, request: Any, client_address: Any) -> None: ...  # a sender that was killed

        self._http = Quiet(("127.0.0.1", port), Handler)
        self.port = self._http.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        assert self.invalid == [], "payloads that are not as the document says"

    def urls(self, prefix: str = "") -> dict[str, str]:
        """Of the three channels that every run has; that of `humanInputWebhookUrl` ends in `/human_input`."""
        return {field: f"{self.url}{prefix}/{channel}" for channel, field in URL_FIELDS.items()}

    def wait(self, condition: Callable[[list[Request]], bool], within: float = 60) -> list[Request]:
        """The requests so far, once they fulfil the condition."""
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self.requests), within), self._story()
            return list(self.requests)

    def wait_for_crew_events(self, n: int = 1, within: float = 60) -> list[Request]:
        return self.wait(
            lambda all_: len({one.event_id for one in all_ if one.path.endswith("/crew")}) >= n, within
        )

    def _take(self, request: Request) -> int:
        invalid = check_body(request.path.rsplit("/", 1)[1], json.loads(request.body))
        with self._changed:
            self.requests.append(request)
            self.invalid += invalid
            status = self.answer(request, len(self.requests))
            self._changed.notify_all()
        return status

    def _story(self) -> str:
        return "received: " + ", ".join(
            f"{one.path} {one.headers.get('webhook-id')}" for one in self.requests
        )


def first_deliveries(requests: list[Request]) -> list[Request]:
    seen: set[str] = set()
    return [one for one in requests if one.event_id not in seen and not seen.add(one.event_id)]  # type: ignore[func-returns-value]


def check_body(channel: str, payload: dict[str, Any]) -> list[str]:
    """What is wrong with a payload, by the document: its schema, fields that it does not have, nulls."""
    problems = [error.message for error in VALIDATORS[channel].iter_errors(payload)]
    problems += [f"{name} is not in the document" for name in set(payload) - set(_fields(channel))]
    problems += [f"{name} is null" for name, value in payload.items() if value is None]
    return problems


def _fields(channel: str) -> dict[str, Any]:
    fields: dict[str, Any] = payload_schema(SCHEMAS[channel])["properties"]
    return fields


def check_payload(request: Request, secret: str) -> Delivery:
    """The delivery, verified and valid against the document: the channel is the path's last part."""
    delivery = verify(secret, request.headers, request.body, tolerance=3600)
    assert check_body(request.path.rsplit("/", 1)[1], delivery.payload) == []
    return delivery


def check_lanes(requests: list[Request]) -> None:
    """First deliveries of each URL and run come in order, their lane numbers dense from 1."""
    lanes: dict[tuple[str, str], list[Request]] = {}
    for one in first_deliveries(requests):
        lanes.setdefault((one.headers["crewcast-kickoff-id"], one.path), []).append(one)
    for name, lane in lanes.items():
        numbers = [int(one.headers["crewcast-lane-seq"]) for one in lane]
        assert numbers == list(range(1, len(lane) + 1)), name
        assert [one.seq for one in lane] == sorted(one.seq for one in lane)
