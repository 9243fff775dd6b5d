"""Values that fit a schema, judged by a real validator."""

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crewcast.stub_llm.schema import fit
from crewcast.stub_llm.wording import Topic

TOPIC = Topic(
    "rooftop solar", ("rooftop solar", "hotel owners"), "Sell 12 roofs at a price of 2500", "Sell 12 roofs"
)
TREE = {
    "$defs": {
        "Node": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}},
            },
            "required": ["name", "children"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/Node",
}
SCHEMAS = [
    {"type": "string", "minLength": 80},
    {"type": "string", "maxLength": 5},
    {"type": "string", "pattern": "^[A-Z]{2}-\\d{3}$"},
    {"type": "array", "items": {"type": "integer"}, "minItems": 5, "maxItems": 7},
    {"type": "array", "items": {"type": "string"}, "maxItems": 1},
    {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "boolean"}], "items": False, "maxItems": 2},
    {"type": "object", "additionalProperties": {"type": "number"}, "minProperties": 3},
    {"type": ["string", "null"]},
    {"enum": [3, "x", None]},
    {"const": {"a": 1}},
    {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]},
    {"oneOf": [{"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]}, {"type": "string"}]},
    {"allOf": [{"$ref": "#/$defs/A"}, {"properties": {"b": {"type": "integer", "minimum": 9}}, "required": ["b"]}],
     "$defs": {"A": {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}}},
    {"allOf": [{"type": "integer", "minimum": 2}, {"minimum": 7, "maximum": 9}]},
    {"$ref": "#/$defs/Loop", "$defs": {"Loop": {"$ref": "#/$defs/Loop"}}},
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.5},
    {"type": "integer", "multipleOf": 5, "minimum": 11},
    {"type": "object", "properties": {"x": {"type": "integer", "default": 4, "minimum": 4}}, "required": ["x"]},
    TREE,
    {},
]  # fmt: skip


@pytest.mark.parametrize("schema", SCHEMAS, ids=str)
def test_the_value_fits(schema):
    value = fit(schema, TOPIC)
    if "Loop" not in str(schema):  # a reference to itself says nothing that a validator could check
        jsonschema.Draft202012Validator(schema).validate(value)


@pytest.mark.parametrize(
    "kind", ["date", "date-time", "time", "email", "ipv4", "ipv6", "uuid", "uri", "hostname", "duration"]
)
def test_formats_are_kept(kind):
    schema = {"type": "string", "format": kind}
    jsonschema.Draft202012Validator(
        schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    ).validate(fit(schema, TOPIC))


scalars = st.one_of(
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.tuples(st.integers(-50, 50), st.integers(0, 60)).map(
        lambda pair: {"type": "integer", "minimum": pair[0], "maximum": pair[0] + pair[1]}
    ),
    st.tuples(st.integers(-50, 50), st.integers(1, 60)).map(
        lambda pair: {"type": "number", "minimum": pair[0], "exclusiveMaximum": pair[0] + pair[1]}
    ),
    st.tuples(st.integers(0, 30), st.integers(0, 30)).map(
        lambda pair: {"type": "string", "minLength": pair[0], "maxLength": pair[0] + pair[1]}
    ),
    st.lists(st.text(), min_size=1).map(lambda values: {"enum": values}),
)
schemas = st.recursive(
    scalars,
    lambda inner: st.one_of(
        inner.map(lambda part: {"type": "array", "items": part, "minItems": 1}),
        st.lists(inner, min_size=1).map(lambda parts: {"anyOf": parts}),
        st.dictionaries(st.text(min_size=1), inner).map(
            lambda parts: {
                "type": "object",
                "properties": parts,
                "required": list(parts),
                "additionalProperties": False,
            }
        ),
    ),
    max_leaves=12,
)


@given(schemas)
def test_any_schema_made_of_these_parts_gets_a_value_that_fits(schema):
    jsonschema.Draft202012Validator(schema).validate(fit(schema, TOPIC))


def test_a_validity_check_passes_and_trouble_is_denied():
    verdict = {
        "type": "object",
        "properties": {
            "valid": {"type": "boolean"},
            "needs_full_replan": {"type": "boolean"},
            "feedback": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        },
        "required": ["valid", "needs_full_replan", "feedback"],
    }
    assert fit(verdict, TOPIC) == {"valid": True, "needs_full_replan": False, "feedback": None}


def test_arguments_take_their_values_from_the_task():
    task = "Assume 1,200 possible customers, of whom 8.5 percent buy for an audience of city planners, see https://a.example/x."
    topic = Topic("roofs", ("roofs",), task, task, short=True)
    schema = {
        "type": "object",
        "properties": {
            "customers": {"type": "integer"},
            "share_percent": {"type": "number"},
            "audience": {"type": "string"},
            "website_url": {"type": "string"},
        },
    }
    assert fit(schema, topic) == {
        "customers": 1200,
        "share_percent": 8.5,
        "audience": "city planners",
        "website_url": "https://a.example/x",
    }


DISHES = {
    "type": "object",
    "properties": {"dishes": {"type": "array", "items": {"type": "string"}}},
    "required": ["dishes"],
}
FOUND = 'Add up the dishes of the week.\nThe find_dishes tool reported: "Dishes without nuts: Rice; Pea soup; Pie".'


def asked(text):
    return Topic("lunch", ("lunch",), text, text, short=True)


def test_a_list_argument_takes_the_items_that_the_text_lists_behind_its_name():
    assert fit(DISHES, asked(FOUND)) == {"dishes": ["Rice", "Pea soup", "Pie"]}
    unlisted = fit(DISHES, asked("Add it all up."))
    assert unlisted == {"dishes": ["lunch", "lunch"]}


@pytest.mark.parametrize(
    ("bounds", "items"),
    [({"maxItems": 2}, ["Rice", "Pea soup"]), ({"minItems": 3}, ["Rice", "Pea soup", "Pie"])],
)
def test_a_listed_argument_keeps_the_bounds_of_its_list(bounds, items):
    schema = {**DISHES, "properties": {"dishes": {**DISHES["properties"]["dishes"], **bounds}}}
    assert fit(schema, asked(FOUND)) == {"dishes": items}


@pytest.mark.parametrize(
    "rule", [{"minItems": 4}, {"items": {"enum": ["a", "b"]}}, {"items": {"type": "integer"}}], ids=str
)
def test_items_that_the_schema_would_refuse_are_not_taken_from_the_text(rule):
    schema = {**DISHES, "properties": {"dishes": {**DISHES["properties"]["dishes"], **rule}}}
    jsonschema.validate(fit(schema, asked(FOUND)), schema)


def test_a_number_that_the_task_states_wins_over_the_default():
    minutes = {"type": "object", "properties": {"minutes": {"type": "integer", "default": 180}}}
    assert fit(minutes, asked("Plan a workshop that takes 210 minutes.")) == {"minutes": 210}
    assert fit(minutes, asked("Plan a workshop.")) == {"minutes": 180}


def test_a_form_that_the_description_prescribes_is_kept():
    schema = {
        "type": "object",
        "properties": {
            "start": {"type": "string", "description": "When it begins, as HH:MM."},
            "day": {"type": "string", "description": "YYYY-MM-DD"},
        },
    }
    assert fit(schema, asked("It starts at 13:15 on 2025-06-02.")) == {"start": "13:15", "day": "2025-06-02"}
    assert fit(schema, asked("It starts soon.")) == {"start": "09:30", "day": "2025-01-15"}


@pytest.mark.parametrize(
    ("name", "task", "value"),
    [
        ("order", "Look up order B-1042 of Ada Moreau.", "B-1042"),
        ("without", "Plan lunches without dairy and fish.", "dairy and fish"),
        ("audience", "Find an audience of hotels and write a report.", "hotels"),
    ],
)
def test_an_argument_is_what_stands_first_behind_its_name(name, task, value):
    schema = {"type": "object", "properties": {name: {"type": "string"}}}
    assert fit(schema, asked(task)) == {name: value}


@pytest.mark.parametrize(
    ("options", "text", "chosen"),
    [
        # All are listed, and the message says one of them again.
        (["delivery", "refund"], "Is it delivery or refund? 'I would like a refund.'", "refund"),
        (["delivery", "refund"], "Is it delivery or refund? 'It was not delivered.'", "delivery"),
        (["delivery", "refund"], "Is it delivery or refund? 'Hello.'", "delivery"),
        (["delivery", "refund"], "'Hello.'", "delivery"),
        # Where nothing speaks for one, none that would start the work again.
        (["revise", "approved"], "Is it to revise or approved?", "approved"),
        (["needs_work", "done"], "Look at the draft.", "done"),
        (["revise", "approved"], "Is it to revise or approved? 'Please revise it.'", "revise"),
        (["prefix", "suffix"], "Hello.", "prefix"),
    ],
)
def test_an_enumeration_takes_what_the_text_says_most(options, text, chosen):
    assert fit({"enum": options}, asked(text)) == chosen
