"""What a parameter of a method may be: one small value for each sort."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from rankloom.errors import RefError

if TYPE_CHECKING:
    from collections.abc import Callable

REQUIRED: Final = object()
"""Stands for the default of a parameter that has none."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a method.

    Attributes:
        holds: whether a value may be given.
        wanted: what may be given, in words.
        default: the value if none is given, or :data:`REQUIRED`.
        convert: gives the value as it is kept in a lock.
        each: an adapter may have a value of its own: a list has one for each of them.
    """

    holds: Callable[[Any], bool]
    wanted: str
    default: Any = REQUIRED
    convert: Callable[[Any], Any] = field(default=lambda value: value)
    each: bool = False

    def read(self, name: str, value: object, adapters: int) -> Any:  # noqa: ANN401 - JSON
        """Return a value as it is kept in a lock.

        Raises:
            RefError: it cannot be.
        """
        if not isinstance(value, list | tuple) or not self.each:
            return self._read(name, value)
        if len(value) != adapters:
            message = f"MRG003 {adapters} adapters, but {len(value)} values of {name}"
            raise RefError(message, hint="give one for all adapters, or one for each")
        return [self._read(name, item) for item in value]

    def _read(self, name: str, value: object) -> Any:  # noqa: ANN401 - JSON
        if not self.holds(value):
            message = f"MRG003 {name} is {value!r}"
            raise RefError(message, hint=f"it is {self.wanted}")
        return self.convert(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def number(default: object = REQUIRED) -> Parameter:
    """Return a parameter that is any finite number."""
    return Parameter(_is_number, "a finite number", default, float)


def share(default: object = REQUIRED, *, least: float = 0, each: bool = False) -> Parameter:
    """Return a parameter above ``least``, at most 1."""

    def holds(value: Any) -> bool:  # noqa: ANN401 - JSON
        return _is_number(value) and least < value <= 1

    return Parameter(holds, "a number above 0 and at most 1", default, float, each)


def small(default: object = REQUIRED, *, closed: bool = False) -> Parameter:
    """Return a parameter from 0 on and below 1, or up to 1."""

    def holds(value: Any) -> bool:  # noqa: ANN401 - JSON
        return _is_number(value) and value >= 0 and (value <= 1 if closed else value < 1)

    return Parameter(holds, f"a number from 0 {'to' if closed else 'on, below'} 1", default, float)


def whole(default: object = REQUIRED, *, least: int | None = None) -> Parameter:
    """Return a parameter that is a whole number."""

    def holds(value: Any) -> bool:  # noqa: ANN401 - JSON
        return _is_whole(value) and (least is None or value >= least)

    wanted = "a whole number" if least is None else f"a whole number from {least} on"
    return Parameter(holds, wanted, default)


def flag(default: object = REQUIRED) -> Parameter:
    """Return a parameter that is true or false."""
    return Parameter(lambda value: isinstance(value, bool), "true or false", default)


def choice(default: str, *others: str) -> Parameter:
    """Return a parameter that is one of a few words."""
    words = (default, *others)
    return Parameter(lambda value: value in words, f"one of {', '.join(words)}", default)
