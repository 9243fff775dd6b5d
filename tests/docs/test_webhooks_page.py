"""docs/webhooks.md against the contract, the sender and the mapping."""

import ast
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker
from standardwebhooks import Webhook

from crewcast import webhooks
from crewcast.contract.asyncapi import _ALWAYS_SENT, DELIVERY_HEADERS, payload_schema
from crewcast.core import outcome, signature, url
from crewcast.core.backoff import SECOND, SHORT_SCHEDULE
from crewcast.dispatch.dispatcher import STOPPED
from crewcast.dispatch.egress import EgressPolicy
from tests.docs.pages import SOURCE, blocks, section, table

CHANNELS = {
    "Task events": "TaskCompletedPayload",
    "Step events": "StepEventPayload",
    "Crew events": "CrewCompletedPayload",
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
