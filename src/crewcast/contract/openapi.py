"""The OpenAPI document that a server publishes: its routes as written by hand, its webhooks from the AsyncAPI document.

What AMP has for the only crew, a server has for each of several: these routes are made from those.
"""

from functools import cache

import msgspec

from crewcast import __version__
from crewcast.contract import asyncapi
from crewcast.contract.asyncapi import JSON, read
from crewcast.core.outcome import SETTLED_REFUSALS


@cache
def document() -> JSON:
    """OpenAPI 3.1: `openapi.yaml`, `openapi.components.yaml`, and the webhooks with their payloads."""
    events = asyncapi.document()
    routes, components = read("openapi.yaml"), read("openapi.components.yaml")
    routes["info"]["version"] = __version__
    routes["paths"] |= _of_a_crew(routes["paths"])
    payloads = {
        name: schema for name, schema in events["components"]["schemas"].items() if name != "DeliveryHeaders"
    }
    signature = events["components"]["securitySchemes"]["standardWebhooks"]
    components["schemas"] |= payloads
    components["securitySchemes"]["standardWebhooks"] = signature | {"type": "apiKey"}
    webhooks = {name: {"post": _delivery(events, name, operation)} for name, operation in _receiving(events)}
    return routes | {"webhooks": webhooks, "components": components}


@cache
def published() -> bytes:
    """The document as JSON."""
    return msgspec.json.encode(document())


def _of_a_crew(paths: JSON) -> JSON:
    """The routes of one crew: as the bare ones, with its name in front. Takes `x-of-a-crew` out of these."""
    crew = {"$ref": "#/components/parameters/CrewName"}
    unknown = {"$ref": "#/components/responses/UnknownRunOfCrew"}
    found = {}
    for path, item in paths.items():
        for method, operation in item.items():
            if method != "parameters" and (own := operation.pop("x-of-a-crew", None)):
                responses = dict(operation["responses"])
                if responses["404"]["$ref"].endswith("/UnknownRun"):
                    responses["404"] = unknown
                found[f"/crews/{{name}}{path}"] = {
                    "parameters": [crew, *item.get("parameters", [])],
                    method: operation | own | {"tags": ["Crews"], "responses": responses},
                }
    return found


def _receiving(events: JSON) -> list[tuple[str, JSON]]:
    """Each channel's name with the operation that receives its events."""
    return [
        (operation["channel"]["$ref"].rpartition("/")[2], {"operationId": name} | operation)
        for name, operation in events["operations"].items()
    ]


def _delivery(events: JSON, channel: str, operation: JSON) -> JSON:
    """The POST of one event, as a subscriber sees it."""
    [message] = [
        events["components"]["messages"][reference["$ref"].rpartition("/")[2]]
        for reference in events["channels"][channel]["messages"].values()
    ]
    return {
        "operationId": operation["operationId"],
        "tags": ["Webhooks"],
        "summary": operation["summary"],
        "description": operation["description"],
        "security": [{"standardWebhooks": []}],
        "parameters": _headers(events, message),
        "requestBody": {
            "required": True,
            "content": {
                message["contentType"]: {
                    "schema": message["payload"],
                    "examples": {
                        example["name"]: {"summary": example["summary"], "value": example["payload"]}
                        for example in message["examples"]
                    },
                }
            },
        },
        "responses": {
            "2XX": {"$ref": "#/components/responses/Taken"},
            **{
                str(status): {"$ref": "#/components/responses/Refused"} for status in sorted(SETTLED_REFUSALS)
            },
            "410": {"$ref": "#/components/responses/Gone"},
            "default": {"$ref": "#/components/responses/TriedAgain"},
        },
    }


def _headers(events: JSON, message: JSON) -> list[JSON]:
    """The delivery headers of a message as parameters."""
    common, own = events["components"]["schemas"]["DeliveryHeaders"], message["headers"]
    required = {*common["required"], *own.get("required", ())}
    example = message["examples"][0]["headers"]
    parameters = []
    for name, schema in common["properties"].items():
        merged = schema | own["properties"].get(name, {})
        parameter = {
            "name": name,
            "in": "header",
            "required": name in required,
            "description": merged.pop("description"),
            "schema": merged,
        }
        if name in example:
            parameter["example"] = example[name]
        parameters.append(parameter)
    return parameters
