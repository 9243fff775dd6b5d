"""JSON that fits a JSON schema, filled with the words of the prompt."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from crewcast.stub_llm.wording import (
    Topic,
    amount,
    empty_list,
    listed,
    phrase,
    pick,
    stated,
    wording,
    yes_or_no,
)

Json = Mapping[str, Any]

_FORMATS: Final = {
    "date": "2025-01-15",
    "date-time": "2025-01-15T09:30:00Z",
    "time": "09:30:00Z",
    "duration": "P1D",
    "email": "team@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uri-reference": "/",
    "uuid": "123e4567-e89b-42d3-a456-426614174000",
    "byte": "c3R1Yg==",
    "binary": "stub",
}
# Tried in turn against a `pattern`: what such patterns are mostly about.
_SHAPES: Final = (
    *(
        "A",
        "AA",
        "AAA",
        "AAAA",
        "en",
        "en-US",
        "1",
        "12",
        "123",
        "1234",
        "12345",
        "1.0",
        "1.0.0",
        "A1",
        "AB-123",
    ),
    *("#336699", "+15550100", "2025-01-15", "2025-01", "09:30", "abc", "abc-def", "Abc", "abc_def"),
    *_FORMATS.values(),
)
_STRICTER: Final = {
    **dict.fromkeys(("minimum", "exclusiveMinimum", "minLength", "minItems"), max),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "maxLength", "maxItems"), min),
}
# Deeper than this only what is required is filled, so that a schema which contains itself ends.
_DEPTH: Final = 6
_LONGEST_CHAIN: Final = 8
_LONGEST_LIST: Final = 12
# With any of these, not every text is a value.
_NARROWED: Final = {"enum", "const", "format", "pattern", "minLength", "maxLength"}


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a value stands: under which name, as which item, how deep."""

    name: str = ""
    index: int = 0
    depth: int = 0

    def inside(self, name: str, index: int) -> "_Place":
        return _Place(name, index, self.depth + 1)


def fit(schema: Json, topic: Topic) -> Any:
    """A value valid for the schema. What may be null is null: a stub doesn't volunteer what it could leave out."""
    return _Filler(schema, topic).value(schema, _Place())


class _Filler:
    def __init__(self, root: Json, topic: Topic) -> None:
        self.root = root
        self.topic = topic

    def value(self, schema: Any, place: _Place) -> Any:
        if not isinstance(schema, Mapping):  # `true` and `false` are schemas, too
            return self.topic.subject if schema else None
        schema = self._flat(schema)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return pick(schema["enum"], self.topic.text, place.index)
        if schema.get("default") is not None and not self._is_stated(schema, place):
            return schema["default"]
        if options := schema.get("anyOf") or schema.get("oneOf"):
            return self._option(options, place)
        return self._typed(_kind(schema), schema, place)

    def _typed(self, kind: str, schema: Json, place: _Place) -> Any:
        match kind:
            case "object":
                return self._object(schema, place)
            case "array":
                return self._array(schema, place)
            case "integer" | "number":
                return self._number(schema, place, whole=kind == "integer")
            case "boolean":
                return yes_or_no(place.name)
            case "null":
                return None
            case _:
                return self._string(schema, place)

    def _flat(self, schema: Json) -> Json:
        """References followed and `allOf` merged; references that turn in a circle end as 'anything'."""
        for _ in range(_LONGEST_CHAIN):
            if "$ref" in schema:
                here = {key: value for key, value in schema.items() if key != "$ref"}
                schema = {**self._target(str(schema["$ref"])), **here}
            elif "allOf" in schema:
                merged: Json = {key: value for key, value in schema.items() if key != "allOf"}
                for part in schema["allOf"]:
                    merged = _merge(merged, self._flat(part))
                schema = merged
            else:
                return schema
        return {}

    def _target(self, ref: str) -> Json:
        target: Any = self.root
        for part in filter(None, ref.removeprefix("#").split("/")):
            key = part.replace("~1", "/").replace("~0", "~")
            target = target.get(key, {}) if isinstance(target, Mapping) else {}
        return target if isinstance(target, Mapping) else {}

    def _option(self, options: list[Any], place: _Place) -> Any:
        kinds = [_kind(self._flat(option)) if isinstance(option, Mapping) else "" for option in options]
        if "null" in kinds:
            return None
        # Deep inside, an option without further nesting is the one that ends.
        ends = [
            option for option, kind in zip(options, kinds, strict=True) if kind not in {"object", "array"}
        ]
        return self.value(ends[0] if ends and place.depth > _DEPTH else options[0], place)

    def _object(self, schema: Json, place: _Place) -> dict[str, Any]:
        required = set(schema.get("required", ()))
        made = {
            name: self.value(part, place.inside(name, place.index))
            for name, part in schema.get("properties", {}).items()
            if name in required or place.depth < _DEPTH
        }
        extra = schema.get("additionalProperties")
        wanted = max(schema.get("minProperties", 0) - len(made), int(not made and isinstance(extra, Mapping)))
        for index in range(wanted):
            key = re.sub(r"\W+", "_", phrase(self.topic, index).lower())
            key = key if key not in made else f"{key}_{index}"
            made[key] = self.value(True if extra is None else extra, place.inside(key, index))
        return made

    def _array(self, schema: Json, place: _Place) -> list[Any]:
        first = list(schema.get("prefixItems", ()))
        least, most = schema.get("minItems", 0), schema.get("maxItems", math.inf)
        few = place.depth > _DEPTH or empty_list(place.name)
        size = least if few else min(max(least, len(first) or 2), most)
        if self.topic.short and not first and self._is_free_text(schema.get("items")):
            named = listed(self.topic, place.name)[: int(min(most, _LONGEST_LIST))]
            if len(named) >= max(least, 1):
                return list(named)
        parts = [*first, *[schema.get("items", True)] * int(size)][: int(size)]
        single = place.name.removesuffix("s")
        return [self.value(part, place.inside(single, index)) for index, part in enumerate(parts)]

    def _is_stated(self, schema: Json, place: _Place) -> bool:
        """Whether the task says another number than the default."""
        return _kind(schema) in {"integer", "number"} and stated(self.topic, place.name) is not None

    def _is_free_text(self, schema: Any) -> bool:
        flat = self._flat(schema) if isinstance(schema, Mapping) else {}
        return flat.get("type") == "string" and not flat.keys() & _NARROWED

    def _number(self, schema: Json, place: _Place, *, whole: bool) -> float:
        unit = 1 if whole else 0.01
        low = max(schema.get("minimum", -math.inf), schema.get("exclusiveMinimum", -math.inf) + unit)
        high = min(schema.get("maximum", math.inf), schema.get("exclusiveMaximum", math.inf) - unit)
        made = min(max(amount(self.topic, place.name, place.index, whole=whole), low), high)
        if step := schema.get("multipleOf"):
            made = math.floor(made / step) * step
            made = made if made >= low else made + step
        return math.ceil(made) if whole else round(float(made), 6)

    def _string(self, schema: Json, place: _Place) -> str:
        if (kind := schema.get("format")) in _FORMATS:
            return _FORMATS[str(kind)]
        text = wording(self.topic, place.name, str(schema.get("description", "")), place.index)
        if pattern := schema.get("pattern"):
            candidates = (text, phrase(self.topic, place.index), *_SHAPES)
            text = next((each for each in candidates if re.search(pattern, each)), text)
        text = text[: int(schema.get("maxLength", len(text)))]
        return text.ljust(int(schema.get("minLength", 0)), ".")


def _kind(schema: Json) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        return "null" if "null" in kind else str(kind[0])
    if kind is None:
        return "object" if "properties" in schema else "array" if "items" in schema else "string"
    return str(kind)


def _merge(a: Json, b: Json) -> dict[str, Any]:
    merged = {**a, **b}
    for key in a.keys() & b.keys():
        if key in {"properties", "$defs"}:
            merged[key] = {**a[key], **b[key]}
        elif key == "required":
            merged[key] = [*a[key], *b[key]]
        elif key in _STRICTER:
            merged[key] = _STRICTER[key](a[key], b[key])
    return merged
