"""Python values as JSON that another process makes the same values of, or a word that this cannot be."""

import datetime as dt
import enum
import importlib
import json
from typing import Any

from .outputs import survives
from .wire import encode

Packed = dict[str, Any]


class Unpackable(Exception):
    """A value that no other process could have."""


def pack(value: Any) -> Packed:
    """JSON of which `unpack` makes a value that equals this one. Raises Unpackable where there is none."""
    try:
        packed = _pack(value)
        if unpack(json.loads(encode(packed))) == value:
            return packed
    except Unpackable:
        raise
    except Exception as error:
        raise Unpackable(type(value).__name__ + ": " + str(error)) from error
    raise Unpackable(type(value).__name__)


def unpack(packed: Packed) -> Any:
    [(kind, value)] = packed.items()
    if kind == "json":
        return value
    if kind == "list":
        return [unpack(each) for each in value]
    if kind == "tuple":
        return tuple(unpack(each) for each in value)
    if kind == "set":
        return {unpack(each) for each in value}
    if kind == "dict":
        return {name: unpack(each) for name, each in value.items()}
    if kind == "datetime":
        return dt.datetime.fromisoformat(value)
    if kind == "date":
        return dt.date.fromisoformat(value)
    class_ = _class(value["class"])
    if kind == "enum":
        return class_(value["value"])
    return class_.model_validate({name: unpack(each) for name, each in value["fields"].items()})


def class_name(class_: type) -> str:
    return class_.__module__ + ":" + class_.__qualname__


def _pack(value: Any) -> Packed:
    if _is_plain(value) and survives(value):
        return {"json": value}
    if isinstance(value, enum.Enum):
        return {"enum": {"class": _named(type(value)), "value": value.value}}
    if type(value) in (list, tuple, set):
        return {type(value).__name__: [_pack(each) for each in value]}
    if type(value) is dict and all(type(name) is str for name in value):
        return {"dict": {name: _pack(each) for name, each in value.items()}}
    if type(value) is dt.datetime:
        return {"datetime": value.isoformat()}
    if type(value) is dt.date:
        return {"date": value.isoformat()}
    if hasattr(type(value), "model_fields"):
        fields = {name: getattr(value, name) for name in type(value).model_fields}
        fields.update(getattr(value, "model_extra", None) or {})
        packed = {name: _pack(each) for name, each in fields.items()}
        return {"model": {"class": _named(type(value)), "fields": packed}}
    raise Unpackable(type(value).__name__)


def _is_plain(value: Any) -> bool:
    """Whether JSON's own types are all there is: an enum of strings equals its text, and is none."""
    if isinstance(value, list):
        return type(value) is list and all(_is_plain(each) for each in value)
    if isinstance(value, dict):
        return type(value) is dict and all(
            type(name) is str and _is_plain(each) for name, each in value.items()
        )
    return value is None or type(value) in (bool, int, float, str)


def _named(class_: type) -> str:
    name = class_name(class_)
    if _class(name) is not class_:
        raise Unpackable(name)
    return name


def _class(name: str) -> Any:
    """The class of this name. Raises Unpackable for one that is made anew each time, inside a function say."""
    module, _, path = name.partition(":")
    try:
        value: Any = importlib.import_module(module)
        for part in path.split("."):
            value = getattr(value, part)
    except (ImportError, AttributeError):
        raise Unpackable(name) from None
    return value
