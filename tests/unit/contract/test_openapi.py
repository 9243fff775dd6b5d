"""The OpenAPI document: valid, of all routes, with examples that hold, and one with the AsyncAPI document and the code."""

import copy
import json
import re

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

import crewcast
from crewcast.api import amp as amp_routes
from crewcast.api.app import Context, create_app
from crewcast.api.auth import Tokens
from crewcast.api.query import PAGE
from crewcast.api.reviews import MAX_NAME
from crewcast.clock import RealClock
from crewcast.contract import amp, asyncapi, openapi, resume, terms
from crewcast.contract import kickoff as kickoffs
from crewcast.core import lane, outcome, url
from crewcast.core.backoff import SECOND
from crewcast.core.review import Choice, Default, How, ReviewState
from tests.support.documents import closed, problems, stream_events

DOCUMENT = openapi.document()
SCHEMAS = DOCUMENT["components"]["schemas"]


def faults(document) -> list[str]:
    return [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()]


def test_it_is_valid():
    assert faults(DOCUMENT) == []
    assert json.loads(openapi.published()) == DOCUMENT


@pytest.mark.parametrize(
    "path",
    [
        ("openapi",),
        ("info", "title"),
        ("components", "responses", "Started", "description"),
        ("components", "parameters", "After", "schema"),
        ("paths", "/status/{kickoff_id}", "parameters"),
        ("webhooks", "stepEvents", "post", "requestBody", "content"),
    ],
)
def test_a_document_without_one_of_these_is_not(path):
    document = copy.deepcopy(DOCUMENT)
    *way, last = path
    place = document
    for name in way:
        place = place[name]
    del place[last]
    assert faults(document) != []


def test_every_reference_leads_somewhere():
    found = re.findall(r'"\$ref":"([^"]+)"', openapi.published().decode())
    assert len(found) > 100
    for reference in found:
        assert resolved({"$ref": reference}), reference


def operations():
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            if method != "parameters":
                parameters = [
                    resolved(one) for one in item.get("parameters", []) + operation.get("parameters", [])
                ]
                yield method, path, operation, parameters


def resolved(part):
    if "$ref" not in part:
        return part
    found = DOCUMENT
    for name in part["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    return found


def served():
    context = Context(None, RealClock(), Tokens("t"), {}, None, bytes, None, None, None, None, None)  # type: ignore[arg-type]
    routes = create_app(context)._app.routes  # type: ignore[attr-defined]
    return {(method.lower(), route.path) for route in routes for method in route.methods - {"HEAD"}}


def test_every_route_is_in_it_and_no_other():
    assert {(method, path) for method, path, _, _ in operations()} == served()


def test_every_name_in_a_path_is_described():
    for _, path, _, parameters in operations():
        assert {one["name"] for one in parameters if one["in"] == "path"} == set(
            re.findall(r"{(\w+)}", path)
        ), path
        assert all(one["required"] for one in parameters if one["in"] == "path")


def test_each_operation_has_a_name_and_a_tag_of_its_own():
    names = [operation["operationId"] for _, _, operation, _ in operations()]
    names += [item["post"]["operationId"] for item in DOCUMENT["webhooks"].values()]
    assert len(names) == len(set(names))
    tags = {tag["name"] for tag in DOCUMENT["tags"]}
    assert {tag for _, _, operation, _ in operations() for tag in operation["tags"]} | {"Webhooks"} == tags


def test_routes_that_want_a_token_say_what_comes_without():
    for _, path, operation, _ in operations():
        assert (operation.get("security") != []) == ("401" in operation["responses"]), path


def test_every_component_is_used():
    text = json.dumps(DOCUMENT)
    for kind, components in DOCUMENT["components"].items():
        if kind != "securitySchemes":
            unused = [name for name in components if f"#/components/{kind}/{name}" not in text]
            assert unused == [], kind


# --- examples ---------------------------------------------------------------------------------


def media(part=DOCUMENT, path=()):
    """Every media type of the document, wherever it stands, with its path."""
    if isinstance(part, dict):
        for name, value in part.items():
            if name == "content" and all("/" in kind for kind in value):
                for kind, one in value.items():
                    yield (*path, name, kind), kind, one
            else:
                yield from media(value, (*path, name))


def examples(one):
    return ([one["example"]] if "example" in one else []) + [
        e["value"] for e in one.get("examples", {}).values()
    ]


def test_the_examples_are_as_their_schemas_say():
    document, seen = closed(DOCUMENT), 0
    for path, kind, one in media():
        for example in examples(one):
            seen += 1
            assert problems(document, example, *path, "schema") == [], path
            if kind == "text/event-stream":
                for name, data in stream_events(example):
                    assert problems(document, data, *path, "x-events", name) == []
    assert seen > 25


def test_every_body_of_json_has_an_example():
    without = [path for path, kind, one in media() if kind == "application/json" and not examples(one)]
    assert without == [("paths", "/openapi.json", "get", "responses", "200", "content", "application/json")]


def test_the_examples_of_a_kickoff_can_be_started():
    crew = kickoffs.CrewInputs(["audience", "topic"], ["audience", "topic"])
    for example in examples(
        DOCUMENT["paths"]["/kickoff"]["post"]["requestBody"]["content"]["application/json"]
    ):
        kickoff = kickoffs.parse_kickoff(json.dumps(example).encode(), crew, lambda _: None)
        assert kickoff.warnings == []


# --- one with the AsyncAPI document -----------------------------------------------------------


@pytest.mark.parametrize(
    "name", sorted(set(asyncapi.document()["components"]["schemas"]) - {"DeliveryHeaders"})
)
def test_a_payload_is_that_of_the_asyncapi_document(name):
    assert SCHEMAS[name] == asyncapi.document()["components"]["schemas"][name]


def test_the_webhooks_are_the_channels():
    events = asyncapi.document()
    assert set(DOCUMENT["webhooks"]) == set(events["channels"])
    for name, item in DOCUMENT["webhooks"].items():
        [message] = events["channels"][name]["messages"].values()
        message = events["components"]["messages"][message["$ref"].rpartition("/")[2]]
        post = item["post"]
        [(kind, body)] = post["requestBody"]["content"].items()
        assert (kind, body["schema"]) == (message["contentType"], message["payload"])
        assert {one["name"] for one in post["parameters"]} == set(asyncapi.DELIVERY_HEADERS)
        sent = {one["name"] for one in post["parameters"] if one["required"]}
        assert sent - set(asyncapi._ALWAYS_SENT) == ({"crewcast-pending"} if name == "crewEvents" else set())
        [event] = [one for one in post["parameters"] if one["name"] == "crewcast-event"]
        assert event["schema"]["enum"] == asyncapi.event_types(message["name"])
        refused = {
            status for status in post["responses"] if post["responses"][status]["$ref"].endswith("/Refused")
        }
        assert refused == {str(status) for status in outcome.SETTLED_REFUSALS}


# --- one with the code ------------------------------------------------------------------------


def test_numbers_and_words_are_those_of_the_code():
    parameters = DOCUMENT["components"]["parameters"]
    assert DOCUMENT["info"]["version"] == crewcast.__version__
    assert parameters["IdempotencyKey"]["schema"]["maxLength"] == amp_routes.MAX_KEY_LENGTH
    assert SCHEMAS["WebhookUrl"]["maxLength"] == url.MAX_LENGTH
    assert (
        f"up to {kickoffs.MAX_META_BYTES // 1024} KiB"
        in SCHEMAS["Kickoff"]["properties"]["meta"]["description"]
    )
    assert SCHEMAS["Attempt"]["properties"]["verdict"]["enum"] == [verdict.value for verdict in lane.Verdict]
    limits = [one for _, path, _, parameters in operations() for one in parameters if one["name"] == "limit"]
    assert [limit["schema"]["default"] for limit in limits] == [PAGE, PAGE, PAGE]


def test_the_fields_of_a_kickoff_are_those_that_are_known():
    fields = SCHEMAS["Kickoff"]["properties"]
    assert set(fields) == kickoffs.KNOWN_FIELDS
    assert {name for name in fields if fields[name].get("description", "").startswith("Stored")} == set(
        kickoffs.KEPT_FIELDS
    )


def test_the_states_are_those_of_a_run():
    run = SCHEMAS["Run"]["properties"]
    assert {(status, state) for status in run["status"]["enum"] for state in run["state"]["enum"]} >= set(
        amp.STATES.values()
    )
    assert {state for _, state in amp.STATES.values()} == set(run["state"]["enum"])
    told = set()
    for reference in SCHEMAS["Status"]["oneOf"]:
        fields = resolved(reference)["properties"]
        states, statuses = (
            fields[name].get("enum", [fields[name].get("const")]) for name in ("state", "status")
        )
        told |= {(status, state) for status in statuses for state in states}
    # The setting `paused_status` has another word for one of them.
    assert told == {*amp.STATES.values(), ("running", "PAUSED")}


def test_the_state_tells_which_kind_of_status_it_is():
    mapping = SCHEMAS["Status"]["discriminator"]["mapping"]
    assert SCHEMAS["Status"]["discriminator"]["propertyName"] == "state"
    for state, reference in mapping.items():
        field = resolved({"$ref": reference})["properties"]["state"]
        assert state in field.get("enum", [field.get("const")])
    assert set(mapping) == {state for _, state in amp.STATES.values()}


def test_the_examples_of_a_decision_can_be_taken():
    for example in examples(
        DOCUMENT["paths"]["/resume"]["post"]["requestBody"]["content"]["application/json"]
    ):
        asked = resume.parse_resume(json.dumps(example).encode(), lambda _: None)
        assert asked.task_id == "brief_task"
        assert asked.warnings == []


def test_the_limits_of_a_kickoff_are_those_of_the_code():
    fields = SCHEMAS["Kickoff"]["properties"]
    assert set(fields["limits"]["properties"]) == set(terms.Limits.__struct_fields__)
    assert set(fields["review"]["properties"]) == set(terms.ReviewTerms.__struct_fields__)
    assert fields["review"]["properties"]["default"]["enum"] == [*Default, None]
    assert (fields["priority"]["minimum"], fields["priority"]["maximum"]) == kickoffs.PRIORITIES
    assert fields["max_attempts"]["maximum"] == kickoffs.MOST_ATTEMPTS
    for described in (SCHEMAS["LimitSeconds"], SCHEMAS["Duration"]["oneOf"][0]):
        assert (described["minimum"], described["maximum"]) == (terms.LEAST, terms.LONGEST / SECOND)
    assert SCHEMAS["Count"]["maximum"] == terms.MOST


def test_the_words_of_a_review_are_those_of_the_code():
    fields = SCHEMAS["Review"]["properties"]
    assert fields["state"]["enum"] == list(ReviewState)
    assert fields["decision"]["enum"] == list(Choice)
    assert fields["default"]["enum"] == list(Default)
    assert fields["decided_how"]["enum"] == list(How)
    [state] = [
        one for one in DOCUMENT["paths"]["/api/v1/reviews"]["get"]["parameters"] if one.get("name") == "state"
    ]
    assert state["schema"]["enum"] == [*ReviewState, "all"]
    assert f"at most {MAX_NAME} characters" in DOCUMENT["components"]["parameters"]["Actor"]["description"]
