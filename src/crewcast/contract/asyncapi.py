"""The AsyncAPI document that a server publishes: the given one, and the headers that we add."""

from functools import cache
from importlib import resources
from typing import Any

import yaml

DELIVERY_HEADERS: dict[str, str] = {
    "webhook-id": "The event's id: the same for every delivery of it. Drop what you have seen.",
    "webhook-timestamp": "When this attempt was signed, in seconds since 1970 UTC.",
    "webhook-signature": "Standard Webhooks signatures of `id.timestamp.body`, separated by spaces.",
    "crewcast-event": "step, task.completed, task.error, crew.completed or crew.error.",
    "crewcast-kickoff-id": "The run.",
    "crewcast-run-seq": "The event's number in its run, dense from 1.",
    "crewcast-lane-seq": "The event's number for this URL, dense from 1: a gap is a lost event.",
    "crewcast-run-attempt": "Counts the tries of the run, from 1.",
    "crewcast-delivery-attempt": "Counts the attempts to deliver this event, from 1.",
    "crewcast-replay": "`true` on a repeated delivery that somebody asked for.",
    "crewcast-pending": "On a crew event: how many of the run's events still wait for this origin.",
    "traceparent": "W3C Trace Context; the trace id is the kickoff id.",
}
_ALWAYS_SENT = [name for name in DELIVERY_HEADERS if name not in ("crewcast-replay", "crewcast-pending")]


@cache
def given() -> dict[str, Any]:
    """The document that we implement, as given."""
    text = resources.files("crewcast.contract").joinpath("amp-webhooks.asyncapi.yaml").read_text("utf-8")
    document: dict[str, Any] = yaml.safe_load(text)
    return document


@cache
def published() -> str:
    """The given document with the delivery headers on every message, as YAML."""
    document = given()
    components = document["components"]
    headers = {
        "type": "object",
        "description": "The signature is by Standard Webhooks; the crewcast-* headers are unsigned hints.",
        "required": _ALWAYS_SENT,
        "properties": {
            name: {"type": "string", "description": text} for name, text in DELIVERY_HEADERS.items()
        },
    }
    messages = {
        name: message | {"headers": {"$ref": "#/components/schemas/DeliveryHeaders"}}
        for name, message in components["messages"].items()
    }
    schemas = components["schemas"] | {"DeliveryHeaders": headers}
    whole = document | {"components": components | {"messages": messages, "schemas": schemas}}
    return yaml.safe_dump(whole, sort_keys=False, allow_unicode=True, width=110)


def payload_schema(name: str) -> dict[str, Any]:
    """The JSON Schema of a payload, such as `StepEventPayload`."""
    schema: dict[str, Any] = given()["components"]["schemas"][name]
    return schema
