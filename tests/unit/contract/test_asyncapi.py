"""Our published document contains everything of the given one, unchanged, and says what is sent."""

import hashlib
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from standardwebhooks import Webhook

from crewcast.contract import asyncapi, webhooks
from crewcast.core.event import Channel
from crewcast.core.generation import Rotation
from crewcast.core.keyring import KeyRing
from crewcast.core.lane import Lane
from tests.support.documents import problems, validator

GIVEN = Path(__file__).parents[3] / "src/crewcast/contract/amp-webhooks.asyncapi.yaml"


# Of the document as CrewAI's users know it: our copy is never edited.
SHA256 = "1e07a24ef2b066dffa99492c62e2c58dce754b859df6e2d07f481ef5fa8eed6b"


def test_our_copy_of_the_given_document_is_untouched():
    assert hashlib.sha256(GIVEN.read_bytes()).hexdigest() == SHA256


def contains(larger, smaller, path="") -> None:
    if isinstance(smaller, dict):
        assert isinstance(larger, dict), path
        for key, value in smaller.items():
            assert key in larger, f"{path}/{key}"
            contains(larger[key], value, f"{path}/{key}")
    else:
        assert larger == smaller, path


@pytest.fixture(scope="module")
def published():
    """As somebody reads it: from its text."""
    return yaml.safe_load(asyncapi.published())


@pytest.mark.parametrize("part", ["channels", "operations", "components", "info", "servers", "asyncapi"])
def test_the_given_document_is_contained(part, published):
    given = yaml.safe_load(GIVEN.read_text())
    contains(published[part], given[part], part)


def test_channels_and_payload_schemas_are_not_even_added_to(published):
    given = yaml.safe_load(GIVEN.read_text())
    added = {
        name: published["channels"][name] for name in set(published["channels"]) - set(given["channels"])
    }
    assert published["channels"] == given["channels"] | added
    assert set(added) == {"humanInputEvents"}
    for name, schema in given["components"]["schemas"].items():
        assert published["components"]["schemas"][name] == schema


def test_an_addition_cannot_change_what_is_given():
    with pytest.raises(ValueError, match="/a/b is said already"):
        asyncapi._over({"a": {"b": 1}}, {"a": {"b": 2}})


def test_nothing_is_lost_on_the_way_to_the_text(published):
    assert published == asyncapi.document()


MESSAGES = {
    "TaskCompleted": Channel.TASK,
    "StepEvent": Channel.STEP,
    "CrewCompleted": Channel.CREW,
    "HumanInput": Channel.HUMAN_INPUT,
}


def test_every_message_has_the_delivery_headers(published):
    components = published["components"]
    common = components["schemas"]["DeliveryHeaders"]
    assert set(common["properties"]) == set(asyncapi.DELIVERY_HEADERS)
    assert set(components["messages"]) == set(MESSAGES)
    for message in components["messages"].values():
        assert message["headers"]["allOf"] == [{"$ref": "#/components/schemas/DeliveryHeaders"}]
        assert message["correlationId"] == {"$ref": "#/components/correlationIds/run"}


def test_every_operation_is_a_signed_post(published):
    scheme = published["components"]["securitySchemes"]["standardWebhooks"]
    assert (scheme["type"], scheme["in"], scheme["name"]) == ("httpApiKey", "header", "webhook-signature")
    assert published["components"]["operationBindings"]["delivery"]["http"]["method"] == "POST"
    for place in [*published["operations"].values(), *published["servers"].values()]:
        assert place["security"] == [{"$ref": "#/components/securitySchemes/standardWebhooks"}]
    for operation in published["operations"].values():
        assert operation["bindings"] == {"$ref": "#/components/operationBindings/delivery"}


DRAFTS = {
    "task.completed": webhooks.task_completed("k", "t", "completed", 0),
    "task.error": webhooks.task_completed("k", "t", "error", 0),
    "task.awaiting_human_feedback": webhooks.task_completed("k", "t", "awaiting_human_feedback", 0),
    "step": webhooks.step("k", "t", "thought", 0),
    "crew.completed": webhooks.crew_completed("k", "completed", 0),
    "crew.error": webhooks.crew_completed("k", "error", 0),
    "human_input.requested": webhooks.human_input("k", "t", "requested", 0, output="o"),
    "human_input.reminder": webhooks.human_input("k", "t", "reminder", 0, output="o"),
}


@pytest.mark.parametrize("message", MESSAGES)
def test_the_events_of_a_message_are_those_of_its_channel(message):
    said = [name for name, draft in DRAFTS.items() if draft.channel is MESSAGES[message]]
    assert asyncapi.event_types(message) == said
    assert all(DRAFTS[name].type == name for name in said)


@pytest.mark.parametrize("name", DRAFTS)
@pytest.mark.parametrize("replay", [False, True])
def test_the_headers_that_are_sent_are_as_described(name, replay, published):
    draft = DRAFTS[name]
    run = "01a20bb3-f86a-76d4-9da0-7cc97b4db906"
    sent = webhooks.headers(
        webhooks.encode(draft, run, 3, 1, 1 << 20),
        Lane(run_id=run, number=1, url="", origin="", channels=draft.channel),
        timestamp=1_795_492_674,
        signatures=Webhook("whsec_AAAA").sign("x", datetime.fromtimestamp(0, UTC), "{}"),
        pending=0 if draft.channel is Channel.CREW else None,
        replay=replay,
    )
    told = {key.decode(): value.decode() for key, value in sent}
    assert told.pop("content-type") == "application/json"
    [message] = [message for message, channel in MESSAGES.items() if channel is draft.channel]
    headers = validator(published, "components", "messages", message, "headers")
    assert list(headers.iter_errors(told)) == []
    for wrong in ({"crewcast-lane-seq": "0"}, {"crewcast-event": "other"}, {"webhook-signature": "v1,x"}):
        assert not headers.is_valid(told | wrong)
    assert not headers.is_valid({key: value for key, value in told.items() if key != "crewcast-lane-seq"})


def examples(published) -> list[tuple[str, dict]]:
    return [
        (name, example)
        for name, message in published["components"]["messages"].items()
        for example in message["examples"]
    ]


def test_the_examples_are_valid_and_signed(published):
    [secret] = re.findall(
        r"whsec_[\w+/=]+", published["components"]["securitySchemes"]["standardWebhooks"]["description"]
    )
    assert len(examples(published)) == 9
    for name, example in examples(published):
        payload, headers = example["payload"], example["headers"]
        assert problems(published, payload, "components", "messages", name, "payload") == []
        assert problems(published, headers, "components", "messages", name, "headers") == []
        assert set(payload) <= set(asyncapi.payload_schema(f"{name}Payload")["properties"])
        body = json.dumps(payload, separators=(",", ":"), ensure_ascii=False)
        at = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
        assert Webhook(secret).sign(headers["webhook-id"], at, body) == headers["webhook-signature"]


def test_the_headers_of_the_examples_tell_one_story(published):
    for _, example in examples(published):
        payload, headers = example["payload"], example["headers"]
        run = payload["kickoff_id"].replace("-", "")
        seq, attempt = int(headers["crewcast-run-seq"]), int(headers["crewcast-delivery-attempt"])
        assert headers["crewcast-kickoff-id"] == payload["kickoff_id"]
        assert headers["webhook-id"] == f"evt_{run}_{seq}"
        assert headers["traceparent"] == f"00-{run}-{seq:08x}{attempt:08x}-01"
        asked = headers["crewcast-event"].startswith("human_input.")
        assert asked == ("task_output" in payload)
        assert asked or headers["crewcast-event"].endswith(payload.get("status", "step"))


@pytest.mark.parametrize("rotations", [[], [Rotation(1, "", 1, 1 << 61)]])
@pytest.mark.parametrize("asymmetric", [False, True])
def test_every_signature_that_is_sent_is_as_the_document_says(rotations, asymmetric):
    pattern = asyncapi.DELIVERY_HEADERS["webhook-signature"]["pattern"]
    ring = KeyRing(bytes(32), rotations, asymmetric=asymmetric)
    signatures = ring.signer("https://a.example").sign("evt_1", 1, b"{}")
    assert len(signatures.split(" ")) == (1 + len(rotations)) * (1 + asymmetric)
    assert re.fullmatch(pattern, signatures)
    assert not re.fullmatch(pattern, signatures.replace("v1", "v2"))
