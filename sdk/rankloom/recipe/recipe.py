"""A recipe as people write it, and the lock that pins it."""

from __future__ import annotations

import math
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, Field

from rankloom.errors import RefError
from rankloom.message import Digest, Message
from rankloom.recipe.weights import ByTarget, Gradient, read_weight

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankloom.recipe.weights import Weight


class TargetWeights(Message):
    """A number for each target that the adapter changes, by the target's name."""

    targets: dict[str, float]


class LockedPart(Message):
    """One adapter of a lock: the digest of its version, and its weight.

    A gradient or filters are there as the numbers that they come to.
    """

    digest: Digest
    weight: float | TargetWeights


class Lock(Message):
    """A recipe with everything pinned that decides the bytes of the result.

    Names and paths are not in it: the same adapters under other names give the same lock.

    Attributes:
        algorithm: method and version, e.g. ``"exact/1"``.
        parts: in the order of the recipe, which is the order of the factors in the result.
        parameters: the method's parameters, every default spelled out.
        rank: what the result was brought to, e.g. ``"16"`` or ``"energy=0.999"``; ``None``: it has
            the rank that the method gives.
        random: name and version of the scheme of random numbers, if the method draws any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_alias=True)

    schema_: Literal[1] = Field(default=1, alias="schema")
    algorithm: str
    parts: tuple[LockedPart, ...]
    parameters: dict[str, Any] = Field(default_factory=dict)
    rank: str | None = None
    random: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the lock as the JSON value that a manifest carries."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def check_weights(weights: Sequence[object] | None, labels: Sequence[str]) -> tuple[Weight, ...]:
    """Return one weight for each adapter; ``None`` means all 1.

    Args:
        weights: finite numbers, or what :func:`rankloom.recipe.weights.read_weight` reads.
        labels: the adapters' names.

    Raises:
        RefError: no adapters, another number of weights, a weight that is none, or all weights 0.
    """
    if not labels:
        message = "MRG003 a composition needs at least one adapter"
        raise RefError(message, hint="name one or more refs or folders")
    if weights is None:
        return (1.0,) * len(labels)
    if len(weights) != len(labels):
        given = f"{len(weights)} weight" + "s" * (len(weights) != 1)
        message = f"MRG003 {len(labels)} adapters ({', '.join(labels)}), but {given}"
        raise RefError(message, hint="give one weight for each adapter, in the same order")
    checked = tuple(
        _check_weight(weight, label) for weight, label in zip(weights, labels, strict=True)
    )
    if not any(checked):
        message = f"MRG003 every weight is 0: nothing of {', '.join(labels)} would be left"
        raise RefError(message, hint="give at least one adapter a weight other than 0")
    return checked


def _check_weight(weight: object, label: str) -> Weight:
    if isinstance(weight, list | tuple | dict | Gradient | ByTarget):
        return read_weight(weight)
    number = float(weight) if isinstance(weight, Real) else math.nan
    if isinstance(weight, bool) or not math.isfinite(number):
        message = f"MRG003 the weight of {label} is {weight!r}, not a finite number"
        raise RefError(message, hint="negative weights are fine; NaN and infinity are not")
    return number
