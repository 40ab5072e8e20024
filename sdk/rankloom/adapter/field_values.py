"""Parsers of config fields: each returns a checked value or raises ``FieldError``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rankloom.adapter.config import FILE
from rankloom.adapter.config_checks import FieldError, pattern
from rankloom.finding import Finding

if TYPE_CHECKING:
    from rankloom.adapter.kinds.kind import Parse

_SHORT = 80


def refuse(name: str, value: object, what: str) -> FieldError:
    """Return the error that a field's value is not ``what`` it must be."""
    message = f"{FILE}: {name} is {value!r:.{_SHORT}}, not {what}"
    return FieldError(Finding("CFG001", message, where=name, fix="save the adapter again"))


def whole(least: int = 0, most: int = 1 << 62) -> Parse:
    """Return the parser of a whole number from ``least`` to ``most``."""

    def parse(name: str, value: Any) -> int:  # noqa: ANN401 - a JSON value
        if type(value) is int and least <= value <= most:
            return value
        raise refuse(name, value, f"a whole number from {least} to {most}")

    return parse


def number(name: str, value: Any) -> float:  # noqa: ANN401 - a JSON value
    """Return a finite number."""
    if type(value) in {int, float} and abs(value) <= 1e30 and math.isfinite(value):
        return float(value)
    raise refuse(name, value, "a finite number")


def choice(*values: str) -> Parse:
    """Return the parser of one of these texts."""

    def parse(name: str, value: Any) -> str:  # noqa: ANN401 - a JSON value
        if isinstance(value, str) and value in values:
            return value
        raise refuse(name, value, f"one of {', '.join(values)}")

    return parse


def optional(parse: Parse) -> Parse:
    """Return a parser that takes ``null`` too."""
    return lambda name, value: None if value is None else parse(name, value)


def by_pattern(parse: Parse) -> Parse:
    """Return the parser of values by pattern of the module's name, as in ``rank_pattern``."""

    def parse_all(name: str, value: Any) -> dict[str, Any]:  # noqa: ANN401 - a JSON value
        found = pattern(name, value)
        return {key: parse(f"{name}[{key[:40]!r}]", item) for key, item in found.items()}

    return parse_all
