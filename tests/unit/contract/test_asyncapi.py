"""Our published document contains everything of the given one, unchanged."""

import hashlib
from pathlib import Path

import pytest
import yaml

from crewcast.contract import asyncapi

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


@pytest.mark.parametrize("part", ["channels", "operations", "components", "info", "servers", "asyncapi"])
def test_the_given_document_is_contained(part):
    given = yaml.safe_load(GIVEN.read_text())
    published = yaml.safe_load(asyncapi.published())
    contains(published[part], given[part], part)


def test_channels_and_payload_schemas_are_not_even_added_to():
    given = yaml.safe_load(GIVEN.read_text())
    published = yaml.safe_load(asyncapi.published())
    assert published["channels"] == given["channels"]
    for name, schema in given["components"]["schemas"].items():
        assert published["components"]["schemas"][name] == schema


def test_every_message_has_the_delivery_headers():
    published = yaml.safe_load(asyncapi.published())
    headers = published["components"]["schemas"]["DeliveryHeaders"]
    assert set(headers["properties"]) == set(asyncapi.DELIVERY_HEADERS)
    for message in published["components"]["messages"].values():
        assert message["headers"] == {"$ref": "#/components/schemas/DeliveryHeaders"}
