"""Values that another process gets as they are, through JSON."""

import datetime as dt
import enum
import json

import pytest
from pydantic import BaseModel, PrivateAttr

from crewcast.crew.child.packing import Unpackable, pack, unpack


class Colour(enum.StrEnum):
    RED = "red"


class Part(BaseModel):
    name: str
    day: dt.date | None = None
    more: BaseModel | None = None
    colours: list[Colour] = []


class Open(BaseModel, extra="allow"):
    pass


class Thing:
    def __repr__(self):
        return "Thing()"  # its name as a test, which must be the same in every process that runs some of them


class Hidden(BaseModel):
    _secret: int = PrivateAttr(default=0)


VALUES = [
    None,
    "text",
    {"a": [1, 2.5, True, None]},
    {"json": 1},
    (1, [2], {"a": (3,)}),
    {1, 2},
    dt.datetime(2024, 2, 29, 12, tzinfo=dt.UTC),
    dt.date(2024, 2, 29),
    Colour.RED,
    [Colour.RED],
    Part(name="a", day=dt.date(2024, 2, 29), more=Part(name="b"), colours=[Colour.RED]),
    {"parts": [Part(name="a")]},
    Open.model_validate({"any": Part(name="a")}),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_is_the_same_in_another_process(value):
    again = unpack(json.loads(json.dumps(pack(value))))
    assert again == value
    assert type(again) is type(value)


def test_a_model_in_a_field_of_any_model_stays_of_its_class():
    assert type(unpack(pack(Part(name="a", more=Part(name="b")))).more) is Part


def test_an_enum_of_strings_stays_one():
    assert type(unpack(pack([Colour.RED]))[0]) is Colour


def hidden():
    found = Hidden()
    found._secret = 1
    return found


def local():
    class Local(BaseModel):
        n: int = 1

    return Local()


@pytest.mark.parametrize(
    "value",
    [
        Thing(),
        {1: 2},
        float("nan"),
        b"bytes",
        [Thing()],
        {"a": Thing()},
        hidden(),
        local(),
        Part,
        "\ud800",
    ],
    ids=repr,
)
def test_what_would_be_another_value_is_not_packed(value):
    with pytest.raises(Unpackable):
        pack(value)
