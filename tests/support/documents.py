"""The published documents as promises: what is wrong with a value, or with an answer, by what they say."""

import copy
import json
from typing import Any

import yaml
from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from tests.support.server import Answer

WHOLE = "urn:document"


def validator(document: Any, *path: str | int) -> Draft202012Validator:
    """For the schema at this path of the document."""
    registry = Registry().with_resource(WHOLE, DRAFT202012.create_resource(document))
    pointer = "".join("/" + str(name).replace("~", "~0").replace("/", "~1") for name in path)
    return Draft202012Validator(
        {"$ref": f"{WHOLE}#{pointer}"}, registry=registry, format_checker=FormatChecker()
    )


def problems(document: Any, value: Any, *path: str | int) -> list[str]:
    """What is wrong with the value by the schema at this path."""
    return [f"{error.json_path}: {error.message}" for error in validator(document, *path).iter_errors(value)]


def closed(document: Any) -> Any:
    """The document with no room for fields that it does not name, but where it says that any may be there."""
    document = copy.deepcopy(document)
    schemas = document["components"]["schemas"]
    bases = {part.get("$ref") for schema in schemas.values() for part in schema.get("allOf", ())}
    for name, schema in schemas.items():
        _close(schema, whole=f"#/components/schemas/{name}" not in bases)
    return document


def _close(schema: Any, *, whole: bool) -> None:
    """`whole`: the schema describes a value, and is not one of several that do so together."""
    if whole and "properties" in schema and "additionalProperties" not in schema:
        schema["unevaluatedProperties"] = False
    inner = [*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")]
    for part in inner:
        if isinstance(part, dict):
            _close(part, whole=True)
    for word in ("allOf", "oneOf", "anyOf"):
        for part in schema.get(word, ()):
            _close(part, whole=False)


class Promised:
    """The answers of an OpenAPI document, taken at their word: a field that it does not name is a fault."""

    def __init__(self, document: Any) -> None:
        self._document = closed(document)

    def answers(self) -> set[tuple[str, str, int]]:
        """Method, path and status of every answer that is described."""
        return {
            (method, path, int(status))
            for path, item in self._document["paths"].items()
            for method, operation in item.items()
            if method != "parameters"
            for status in operation["responses"]
        }

    def faults(self, method: str, path: str, answer: Answer) -> list[str]:
        """What of the answer is not as the document says. `path` is the document's, with its braces."""
        said = self._document["paths"][path][method]["responses"].get(str(answer.status))
        if said is None:
            return [f"{answer.status} is not described"]
        where: tuple[str, ...] = ("paths", path, method, "responses", str(answer.status))
        if "$ref" in said:
            where = tuple(said["$ref"].removeprefix("#/").split("/"))
            said = self._document["components"]["responses"][where[-1]]
        found = {name.lower(): value for name, value in answer.headers.items()}
        faults = [
            fault
            for name, header in said.get("headers", {}).items()
            for fault in self._header(name, header, found.get(name.lower()))
        ]
        if "content" not in said:
            return faults if answer.body == b"" else [*faults, "a body is not described"]
        kind = found["content-type"].partition(";")[0]
        if kind not in said["content"]:
            return [*faults, f"{kind} is not described"]
        place = (*where, "content", kind)
        if kind == "text/event-stream":
            return faults + self._events(said["content"][kind]["x-events"], answer.body.decode(), place)
        return faults + problems(self._document, _read(kind, answer.body), *place, "schema")

    def _header(self, name: str, header: Any, value: str | None) -> list[str]:
        if "$ref" in header:
            header = self._document["components"]["headers"][header["$ref"].rpartition("/")[2]]
        if value is None:
            return [f"the header {name} is missing"] if header.get("required") else []
        read = int(value) if header["schema"]["type"] == "integer" else value
        return [
            f"{name}: {error.message}" for error in Draft202012Validator(header["schema"]).iter_errors(read)
        ]

    def _events(self, known: Any, text: str, place: tuple[str, ...]) -> list[str]:
        faults = []
        for name, data in stream_events(text):
            if name in known:
                faults += problems(self._document, data, *place, "x-events", name)
            else:
                faults.append(f"{name} is not an event of the stream")
        return faults


def stream_events(text: str) -> list[tuple[str, Any]]:
    """Name and data of each server-sent event."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
        if fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found


def _read(kind: str, body: bytes) -> Any:
    match kind:
        case "application/json":
            return json.loads(body)
        case "application/yaml":
            return yaml.safe_load(body)
        case _:
            return body.decode()
