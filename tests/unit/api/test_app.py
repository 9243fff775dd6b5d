"""What is answered where the store cannot work, or we have made a mistake: as the OpenAPI document says."""

import asyncio
import contextlib
from typing import Any

import pytest

from crewcast.api.app import Context, CrewView, create_app
from crewcast.api.auth import Tokens
from crewcast.clock import RealClock
from crewcast.contract import openapi
from crewcast.core.errors import StoreError
from crewcast.core.keyring import KeyRing
from crewcast.core.review_link import ReviewLinks
from crewcast.core.run import new_run
from tests.support.documents import Promised
from tests.support.server import Answer

RUN = "01a20bb3-f86a-76d4-9da0-7cc97b4db906"
LINKS = ReviewLinks(bytes(32), "https://crews.example.com")


class BrokenStore:
    """Every verb of it raises."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        async def verb(*_: Any, **__: Any) -> Any:
            raise self._error

        return verb


def application(store, log_file=None):
    async def inputs():
        return await store.inputs()

    async def refresh():
        return None

    def none():
        return None

    crew = CrewView("odd", none, inputs, none, refresh, none, none, none, none)
    return create_app(
        Context(
            store=store,
            clock=RealClock(),
            tokens=Tokens("t"),
            crews={"odd": crew},
            check_url=lambda _: None,
            random=bytes,
            log_file=lambda _: log_file,
            keys=KeyRing(bytes(32)),
            seal=lambda *_: b"",
            links=LINKS,
            reseal=lambda lane, run_id: None,
        )
    )


# Of a kickoff, of a resume and of a rotation.
BODY = b'{"inputs": {}, "execution_id": "k", "task_id": "t", "human_feedback": "", "is_approve": true, "origin": "all"}'
BODIES = {
    "/api/v1/redeliveries": b'{"kickoff_id": "k"}',
    "/api/v1/origins/reset": b'{"origin": "https://hooks.example.com"}',
}


def ask(app, method, path, before_body=lambda: None) -> Answer:
    """One request to the application. What it raises after its answer is for the log of whoever runs it."""
    headers = [(b"authorization", b"Bearer t"), (b"host", b"127.0.0.1")]
    scope = {"type": "http", "method": method.upper(), "path": path, "query_string": b"", "headers": headers}
    sent = []

    async def receive():
        await asyncio.sleep(0)
        return {"type": "http.request", "body": BODIES.get(path, BODY)}

    async def send(message):
        sent.append(message)
        if len(sent) == 1:
            before_body()

    with contextlib.suppress(RuntimeError):
        asyncio.run(app(scope, receive, send))
    told = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], told, b"".join(part.get("body", b"") for part in sent[1:]))


def routes(status: int) -> list[tuple[str, str]]:
    given = {"/healthz"}  # its 503 tells of a server that stops
    answers = sorted(Promised(openapi.document()).answers())
    return [(method, path) for method, path, told in answers if told == status and path not in given]


@pytest.mark.parametrize(("method", "path"), routes(503))
def test_a_store_that_cannot_work_is_503_and_to_be_asked_again(method, path):
    answer = ask(
        application(BrokenStore(StoreError("the disk is full"))),
        method,
        path.format(kickoff_id="k", seq=1, name="odd", token=LINKS.token(RUN, 1)),
    )
    assert (answer.status, answer.json["message"]) == (503, "Nothing was stored: the disk is full")
    assert Promised(openapi.document()).faults(method, path, answer) == []


@pytest.mark.parametrize(("method", "path"), routes(500))
def test_a_defect_is_500_and_says_nothing_of_itself(method, path):
    answer = ask(
        application(BrokenStore(RuntimeError("secret"))),
        method,
        path.format(kickoff_id="k", seq=1, name="odd", token=LINKS.token(RUN, 1)),
    )
    assert answer.status == 500
    assert b"secret" not in answer.body
    assert Promised(openapi.document()).faults(method, path, answer) == []


def test_a_log_that_grows_while_it_is_read_is_answered_as_long_as_it_was(tmp_path):
    class OneRun:
        async def run(self, run_id):
            return new_run(run_id, "odd", b"{}", 0)

    file = tmp_path / "log"
    file.write_bytes(b"x" * 200_000)

    def grow():
        with file.open("ab") as log:
            log.write(b"y" * 1000)

    answer = ask(application(OneRun(), file), "get", "/api/v1/runs/k/logs", before_body=grow)
    assert (answer.status, answer.headers["content-length"]) == (200, "200000")
    assert answer.body == b"x" * 200_000
