"""Any Python value as JSON that every parser accepts."""

import dataclasses
import datetime as dt
import enum
import json
import math
from typing import Any

# Deeper than any tool's arguments, and well within the recursion limit of both ends.
MAX_DEPTH = 100
# What crews, tasks and agents return. Another class may have an attribute `raw` of its own.
OUTPUTS = frozenset({"CrewOutput", "TaskOutput", "LiteAgentOutput"})


def encode(message: dict[str, Any]) -> bytes:
    """One line: ASCII, no NaN or Infinity, no lone surrogates, whatever a crew put into its values."""
    text = json.dumps(plain(message), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.encode("ascii") + b"\n"


def plain(value: Any, depth: int = 0) -> Any:
    """A copy of `value` made of JSON's own types. It raises nothing but MemoryError: what has no JSON form becomes its text."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        # Python refuses to print, and most parsers to read, integers of thousands of digits.
        return int(value) if value.bit_length() <= 4096 else hex(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, str) or depth >= MAX_DEPTH:
        return text(value)
    try:
        return _plain_container(value, depth + 1)
    except MemoryError:
        raise
    except Exception:
        return text(value)


def _plain_container(value: Any, depth: int) -> Any:
    if isinstance(value, dict):
        return {text(key): plain(item, depth) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item, depth) for item in value]
    if isinstance(value, enum.Enum):
        return plain(value.value, depth)
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, type):
        return text(value)
    if hasattr(value, "model_dump"):
        return plain(value.raw if _is_output(value) else value.model_dump(), depth)
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: plain(getattr(value, name), depth) for name in names}
    return text(value)


def _is_output(value: Any) -> bool:
    return any(base.__name__ in OUTPUTS for base in type(value).__mro__)


def text(value: Any) -> str:
    """`str(value)`, also of an object whose `__str__` fails."""
    try:
        return clean(str.__str__(value) if isinstance(value, str) else str(value))
    except MemoryError:
        raise
    except Exception:
        return "<" + type(value).__name__ + ">"


def as_text(result: Any) -> str:
    """What a crew, a task or a method returned: CrewAI's outputs and texts as they are, other values as JSON, None as ""."""
    if result is None:
        return ""
    value = plain(result)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, allow_nan=False)


def clean(value: str) -> str:
    """`value` as Unicode text: surrogate pairs joined, lone surrogates replaced by U+FFFD."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return str.__str__(value)
