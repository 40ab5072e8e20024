"""JSON read so strictly that every other reader must see the same value.

Python's own reader lets the last of two equal keys win and takes ``NaN``; others take the first.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, NoReturn, cast

from rankloom.tensorfile.defect import Defect


class DuplicateKeyError(ValueError):
    """An object has a key twice."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the key {key[:80]!r} is there twice")
        self.key = key


class NotFiniteError(ValueError):
    """A number is ``NaN`` or infinite, which JSON does not have but Python's writer writes."""


def loads(text: str) -> Any:  # noqa: ANN401 - a JSON value
    """Read JSON.

    Raises:
        DuplicateKeyError: an object has a key twice.
        NotFiniteError: it has ``NaN`` or ``Infinity``.
        ValueError: the text is no JSON, or nests too deeply.
    """
    try:
        return json.loads(
            text, object_pairs_hook=_pairs, parse_int=_int, parse_constant=_no_constant
        )
    except RecursionError:
        message = "it nests too deeply"
        raise ValueError(message) from None


def load_object(text: bytes) -> dict[str, Any]:
    """Read the JSON object of a header, bytes of UTF-8.

    Raises:
        Defect: FMT004 or FMT005.
    """
    try:
        value = loads(text.decode("utf-8"))
    except DuplicateKeyError as error:
        raise Defect("FMT005", f"the header is ambiguous: {error}") from None
    except ValueError as error:  # UnicodeDecodeError is one
        raise Defect("FMT004", f"the header is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise Defect("FMT004", f"the header is a JSON {type(value).__name__}, not an object")
    return cast(dict[str, Any], value)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise DuplicateKeyError(counts.most_common(1)[0][0])
    return value


def _int(digits: str) -> int | float:
    # Other readers take -0 for a float; as an integer it would be a size here and none there.
    return int(digits) if digits != "-0" else -0.0


def _no_constant(name: str) -> NoReturn:
    message = f"{name} is no JSON number"
    raise NotFiniteError(message)
