"""From a plan to the lock that pins it, and back to what a plan is made from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rankloom.errors import RefError
from rankloom.recipe.methods import METHODS, find_method
from rankloom.recipe.recipe import Lock, LockedPart, TargetWeights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankloom.recipe.part import Part
    from rankloom.recipe.plan import Plan
    from rankloom.recipe.weights import Weight

RANDOM: Final = "splitmix64-halves/1"
"""Name and version of ``rankloom_kernels.masks``, which this room does not know."""


def lock(parts: Sequence[Part], plan: Plan) -> Lock:
    """Return the lock of a plan: digests, weights as numbers, all parameters."""
    method = find_method(plan.method)
    locked = [
        LockedPart(digest=part.digest, weight=_weight(plan, number, weight))
        for number, (part, weight) in enumerate(zip(parts, plan.weights, strict=True))
    ]
    return Lock(
        algorithm=method.algorithm,
        parts=tuple(locked),
        parameters=dict(plan.parameters),
        rank=None if plan.keep is None else str(plan.keep),
        random=RANDOM if method.is_random else None,
    )


def _weight(plan: Plan, number: int, weight: Weight) -> float | TargetWeights:
    if isinstance(weight, float):
        return weight
    numbers = {target.name: target.weights[number] for target in plan.targets}
    return TargetWeights(targets={name: value for name, value in numbers.items() if value})


def arguments(lock: Lock) -> dict[str, Any]:
    """Return the keyword arguments with which a plan gives this lock again.

    Raises:
        RefError: the lock is of an algorithm that this version does not have.
    """
    name, _, _ = lock.algorithm.partition("/")
    if name not in METHODS or METHODS[name].algorithm != lock.algorithm:
        message = f"this version of rankloom has no algorithm {lock.algorithm!r}"
        raise RefError(message, hint="compose with the version that wrote the lock")
    weights = [part.model_dump(mode="json")["weight"] for part in lock.parts]
    return {
        "weights": weights,
        "method": name,
        "parameters": lock.parameters,
        "rank": lock.rank,
    }
