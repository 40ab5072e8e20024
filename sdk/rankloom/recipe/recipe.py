"""A recipe as people write it, and the lock that pins it."""

from __future__ import annotations

import math
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, Field

from rankloom.errors import RefError
from rankloom.message import Digest, Message

if TYPE_CHECKING:
    from collections.abc import Sequence

METHODS = {"exact": "exact/1"}
"""Every method and the version of its algorithm; a change that moves a byte gets a new version."""


class Recipe(Message):
    """Refs, one weight for each, and how to combine them."""

    refs: tuple[str, ...] = Field(min_length=1)
    weights: tuple[float, ...]
    method: str = "exact"
    parameters: dict[str, Any] = Field(default_factory=dict)


class LockedPart(Message):
    """One adapter of a lock: the digest of its version, and its weight."""

    digest: Digest
    weight: float


class Lock(Message):
    """A recipe with everything pinned that decides the bytes of the result.

    Names and paths are not in it: the same adapters under other names give the same lock.

    Attributes:
        algorithm: method and version, e.g. ``"exact/1"``.
        parts: in the order of the recipe, which is the order of the factors in the result.
        parameters: the method's parameters, every default spelled out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_alias=True)

    schema_: Literal[1] = Field(default=1, alias="schema")
    algorithm: str
    parts: tuple[LockedPart, ...]
    parameters: dict[str, Any] = Field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the lock as the JSON value that a manifest carries."""
        return self.model_dump(mode="json", by_alias=True)


def algorithm(method: str) -> str:
    """Return the current algorithm of a method.

    Raises:
        RefError: there is no such method.
    """
    if method not in METHODS:
        message = f"there is no method {method!r}"
        raise RefError(message, hint=f"known methods: {', '.join(sorted(METHODS))}")
    return METHODS[method]


def check_weights(weights: Sequence[float] | None, labels: Sequence[str]) -> tuple[float, ...]:
    """Return one finite weight for each adapter; ``None`` means all 1.

    Raises:
        RefError: no adapters, another number of weights, a weight that is no finite number, or
            all weights 0.
    """
    if not labels:
        message = "MRG003 a composition needs at least one adapter"
        raise RefError(message, hint="name one or more refs or folders")
    if weights is None:
        return (1.0,) * len(labels)
    if len(weights) != len(labels):
        message = f"MRG003 {len(labels)} adapters ({', '.join(labels)}), but {len(weights)} weights"
        raise RefError(message, hint="give one weight for each adapter, in the same order")
    checked = tuple(
        _check_weight(weight, label) for weight, label in zip(weights, labels, strict=True)
    )
    if not any(checked):
        message = f"MRG003 every weight is 0: nothing of {', '.join(labels)} would be left"
        raise RefError(message, hint="give at least one adapter a weight other than 0")
    return checked


def _check_weight(weight: object, label: str) -> float:
    number = float(weight) if isinstance(weight, Real) else math.nan
    if isinstance(weight, bool) or not math.isfinite(number):
        message = f"MRG003 the weight of {label} is {weight!r}, not a finite number"
        raise RefError(message, hint="negative weights are fine; NaN and infinity are not")
    return number
