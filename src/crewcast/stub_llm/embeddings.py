"""Embeddings without a model: texts that share words lie near each other."""

import base64
import hashlib
import math
import re
import struct
from functools import lru_cache
from typing import Final

_DIMENSIONS: Final = {"text-embedding-3-large": 3072}
_DEFAULT: Final = 1536
_WORD: Final = re.compile(r"\w+")
# How many places of the vector a word moves: several, so that two words that meet in one place stay apart.
_SPREAD: Final = 8


def dimensions_of(model: str) -> int:
    return _DIMENSIONS.get(model.rsplit("/", 1)[-1], _DEFAULT)


def embed(text: str, dimensions: int) -> list[float]:
    """A unit vector, the sum of one fixed direction per word (and a weaker one per word's beginning)."""
    vector = [0.0] * dimensions
    for word in _WORD.findall(text.lower()) or [""]:
        for token, weight in ((word, 1.0), (word[:5], 0.5)):
            for place, sign in _direction(token):
                vector[place % dimensions] += sign * weight
    norm = math.sqrt(sum(value * value for value in vector))
    if norm == 0.0:  # words may cancel each other out in very few dimensions
        return [1.0, *vector[1:]]
    return [value / norm for value in vector]


def to_base64(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


@lru_cache(maxsize=4096)
def _direction(token: str) -> tuple[tuple[int, float], ...]:
    digest = hashlib.blake2b(token.encode(), digest_size=_SPREAD * 4).digest()
    return tuple((n >> 1, 1.0 if n & 1 else -1.0) for n in struct.unpack(f"<{_SPREAD}I", digest))
