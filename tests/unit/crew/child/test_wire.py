"""Any value becomes a line of JSON that every parser reads."""

import datetime as dt
import enum
import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crewcast.crew.child.wire import MAX_DEPTH, as_text, clean, encode, plain, text

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()))
    | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text(st.characters(exclude_categories=())), inner)
        | st.tuples(inner)
    ),
    max_leaves=20,
)


@given(anything)
def test_a_line_is_ascii_and_strict_json(value):
    line = encode({"value": value})
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    line.decode("ascii")
    decoded = json.loads(line, parse_constant=pytest.fail)
    json.dumps(decoded, ensure_ascii=False).encode("utf-8")


@given(st.text())
def test_text_is_kept(value):
    assert json.loads(encode({"value": value})) == {"value": value}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), None),
        (float("-inf"), None),
        ("a\ud800", "a\ufffd"),
        ("\ud83d\ude00", "\U0001f600"),
        ({"\udfff": 1, 2: "two", None: 3}, {"\ufffd": 1, "2": "two", "None": 3}),
        ((1, [2, {3}]), [1, [2, [3]]]),
        (b"bytes", "b'bytes'"),
        (10**30, 10**30),
    ],
)
def test_values_that_json_has_not(value, expected):
    assert plain(value) == expected


def test_numbers_too_long_to_print_are_written_in_hex():
    assert plain(10**5000) == hex(10**5000)


def test_enumerations_are_their_values():
    class Colour(enum.StrEnum):
        RED = "red"

    class Size(enum.IntEnum):
        BIG = 3

    assert plain([Colour.RED, Size.BIG]) == ["red", 3]
    assert type(plain(Size.BIG)) is int


def test_models_are_their_fields():
    class Model:
        def model_dump(self):
            return {"field": float("nan")}

    assert plain(Model()) == {"field": None}


@dataclass
class Point:
    x: int
    when: Any


@dataclass
class CrewOutput:
    raw: str

    def model_dump(self):
        raise AssertionError("its text stands for it")


@dataclass
class Image:
    """A class of a project's own, with an attribute that is called as CrewAI's."""

    raw: str


class Colour(enum.Enum):
    RED = (1, 2)


MOMENT = dt.datetime(2026, 1, 31, 12, 0, 0, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (None, ""),
        ("a text", "a text"),
        ("lone \udc80", "lone \ufffd"),
        (CrewOutput("its text"), "its text"),
        ([CrewOutput("a"), {"b": CrewOutput("b")}], '["a", {"b": "b"}]'),
        (Image("pixels"), '{"raw": "pixels"}'),
        (Point(1, MOMENT), '{"x": 1, "when": "2026-01-31T12:00:00+00:00"}'),
        (MOMENT.date(), "2026-01-31"),
        (MOMENT.time(), "12:00:00"),
        (Colour.RED, "[1, 2]"),
        (True, "true"),
        (float("nan"), "null"),
        ({"grün": 1.5}, '{"grün": 1.5}'),
        (Point, str(Point)),
    ],
)
def test_results_are_texts(result, expected):
    assert as_text(result) == expected


def test_what_contains_itself_ends():
    loop: list[object] = []
    loop.append(loop)
    assert json.dumps(plain(loop)).count("[") >= MAX_DEPTH


def test_objects_that_cannot_be_printed_have_a_name():
    class Mute:
        def __str__(self):
            raise RuntimeError

    assert text(Mute()) == "<Mute>"
    assert plain({"mute": Mute()}) == {"mute": "<Mute>"}


def test_what_there_is_no_memory_for_is_not_taken_for_what_cannot_be_printed():
    class Large:
        def __str__(self):
            raise MemoryError

    for say in (text, plain, as_text, lambda value: encode({"large": [value]})):
        with pytest.raises(MemoryError):
            say(Large())


def test_clean_text_is_a_plain_str():
    class Shout(str):
        __slots__ = ()

        def __str__(self):
            return self.upper()

    assert clean(Shout("quiet")) == "quiet"
    assert type(clean(Shout("quiet"))) is str
