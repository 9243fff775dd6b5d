"""The AsyncAPI document that a server publishes: the given one, and what Crewcast adds.

The given document stays as it is, in a file of its own; `additions.asyncapi.yaml` and the delivery headers below
are laid over it. What they add is new: nothing that the given document says is changed.
"""

from functools import cache
from importlib import resources
from typing import Any

import yaml

JSON = dict[str, Any]

COUNT = "^[1-9][0-9]*$"

# Each is a text, as HTTP has it: the pattern says of what.
DELIVERY_HEADERS: dict[str, JSON] = {
    "webhook-id": {
        "pattern": "^evt_[0-9a-f]{32}_[1-9][0-9]*$",
        "description": "The event's id: the same for every delivery of it. Drop what you have seen.",
    },
    "webhook-timestamp": {
        "pattern": "^[0-9]+$",
        "description": "When this attempt was signed, in seconds since 1970 UTC.",
    },
    "webhook-signature": {
        "pattern": "^v1,[A-Za-z0-9+/]{43}=( v1,[A-Za-z0-9+/]{43}=)*( v1a,[A-Za-z0-9+/]{86}==)*$",
        "description": "Standard Webhooks signatures of `id.timestamp.body`, separated by spaces.",
    },
    "crewcast-event": {
        "description": "What it is: `step`, or the channel and the payload's status, such as `task.completed`.",
    },
    "crewcast-kickoff-id": {"format": "uuid", "description": "The run."},
    "crewcast-run-seq": {"pattern": COUNT, "description": "The event's number in its run, dense from 1."},
    "crewcast-lane-seq": {
        "pattern": COUNT,
        "description": "The event's number for this URL, dense from 1: a gap is a lost event.",
    },
    "crewcast-run-attempt": {"pattern": COUNT, "description": "Counts the tries of the run, from 1."},
    "crewcast-delivery-attempt": {
        "pattern": COUNT,
        "description": "Counts the attempts to deliver this event, from 1.",
    },
    "crewcast-replay": {
        "enum": ["true"],
        "description": "`true` on a repeated delivery that somebody asked for.",
    },
    "crewcast-pending": {
        "pattern": "^[0-9]+$",
        "description": "On a crew event: how many of the run's events still wait for this origin.",
    },
    "traceparent": {
        "pattern": "^00-[0-9a-f]{32}-[0-9a-f]{16}-01$",
        "description": "W3C Trace Context; the trace id is the kickoff id.",
    },
}
_ALWAYS_SENT = [name for name in DELIVERY_HEADERS if name not in ("crewcast-replay", "crewcast-pending")]
# Of a message that the given document does not have, and whose payload has no status.
_KINDS = {"HumanInput": ["human_input.requested", "human_input.reminder"]}
_TOP = ("asyncapi", "id", "info", "defaultContentType", "servers", "channels", "operations", "components")


@cache
def given() -> JSON:
    """The document that we implement, as given."""
    return read("amp-webhooks.asyncapi.yaml")


@cache
def document() -> JSON:
    """The document that we publish: everything of the given one, and what Crewcast adds."""
    whole = _over(given(), read("additions.asyncapi.yaml"))
    whole = _over(whole, _headers(whole))
    whole["components"]["schemas"] = whole["components"].pop("schemas")
    return {name: whole[name] for name in _TOP}


@cache
def published() -> str:
    """The document as YAML."""
    return yaml.dump(document(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def payload_schema(name: str) -> JSON:
    """The JSON Schema of a payload, such as `StepEventPayload`."""
    schema: JSON = document()["components"]["schemas"][name]
    return schema


def event_types(message: str) -> list[str]:
    """What `crewcast-event` can say on a message, such as `task.completed` on a `TaskCompleted`."""
    if message in _KINDS:
        return _KINDS[message]
    payload = given()["components"]["messages"][message]["payload"]["$ref"]
    fields = given()["components"]["schemas"][payload.rpartition("/")[2]]["properties"]
    channel = message.removesuffix("Completed").removesuffix("Event").lower()
    return [f"{channel}.{status}" for status in fields["status"]["enum"]] if "status" in fields else [channel]


def _headers(document: JSON) -> JSON:
    """The delivery headers of each message: those that all have, and what this one says in them."""
    common = {
        "type": "object",
        "description": "The signature is by Standard Webhooks; the crewcast-* headers are unsigned hints.",
        "required": _ALWAYS_SENT,
        "properties": {name: {"type": "string"} | schema for name, schema in DELIVERY_HEADERS.items()},
    }
    messages = {}
    for name in document["components"]["messages"]:
        own: JSON = {
            "type": "object",
            "allOf": [{"$ref": "#/components/schemas/DeliveryHeaders"}],
            "properties": {"crewcast-event": {"type": "string", "enum": event_types(name)}},
        }
        if name == "CrewCompleted":
            own["required"] = ["crewcast-pending"]
        messages[name] = {"headers": own}
    return {"components": {"messages": messages, "schemas": {"DeliveryHeaders": common}}}


def _over(below: JSON, above: JSON, path: str = "") -> JSON:
    """Both together.

    Raises ValueError where `above` has another value for what `below` says already.
    """
    whole = dict(below)
    for name, value in above.items():
        if name not in below:
            whole[name] = value
        elif isinstance(below[name], dict) and isinstance(value, dict):
            whole[name] = _over(below[name], value, f"{path}/{name}")
        else:
            raise ValueError(f"{path}/{name} is said already")
    return whole


def read(name: str) -> JSON:
    """A YAML file of this folder."""
    text = resources.files("crewcast.contract").joinpath(name).read_text("utf-8")
    document: JSON = yaml.safe_load(text)
    return document


class _Dumper(yaml.SafeDumper):
    """As a person would write it: longer texts as blocks, and nothing by reference but `$ref`."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
