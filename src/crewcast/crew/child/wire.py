"""Any Python value as JSON that every parser accepts."""

import json
import math
from typing import Any

# Deeper than any tool's arguments, and well within the recursion limit of both ends.
MAX_DEPTH = 100


def encode(message: dict[str, Any]) -> bytes:
    """One line: ASCII, no NaN or Infinity, no lone surrogates, whatever a crew put into its values."""
    text = json.dumps(plain(message), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.encode("ascii") + b"\n"


def plain(value: Any, depth: int = 0) -> Any:
    """A copy of `value` made of JSON's own types. It never raises: what has no JSON form becomes its text."""
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
    except Exception:
        return text(value)


def _plain_container(value: Any, depth: int) -> Any:
    if isinstance(value, dict):
        return {text(key): plain(item, depth) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item, depth) for item in value]
    if hasattr(value, "model_dump") and not isinstance(value, type):
        return plain(value.model_dump(), depth)
    return text(value)


def text(value: Any) -> str:
    """`str(value)`, also of an object whose `__str__` fails."""
    try:
        return clean(str.__str__(value) if isinstance(value, str) else str(value))
    except Exception:
        return "<" + type(value).__name__ + ">"


def as_text(result: Any) -> str:
    """What a crew, a task or a method returned: CrewAI's outputs and texts as they are, other values as JSON, None as ""."""
    raw = getattr(result, "raw", result)
    if raw is None:
        return ""
    if isinstance(raw, str):
        return text(raw)
    if isinstance(raw, (bool, int, float, dict, list, tuple, set, frozenset)) or hasattr(raw, "model_dump"):
        return json.dumps(plain(raw), ensure_ascii=False, allow_nan=False)
    return text(raw)


def clean(value: str) -> str:
    """`value` as Unicode text: surrogate pairs joined, lone surrogates replaced by U+FFFD."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return str.__str__(value)
