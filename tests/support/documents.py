"""JSON Schemas that stand inside a document and refer to its other parts."""

from typing import Any

from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry
from referencing.jsonschema import DRAFT202012

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
