"""Methods whose result is factors, and sums that are brought to a smaller rank."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rankloom.change.formula import Weighted
from rankloom.compose.core.methods import combine
from rankloom.compose.factors.recompress import recompress
from rankloom.compose.factors.value import check_finite, join
from rankloom.compose.losses import Loss
from rankloom.compose.matrices import Matrices
from rankloom.compose.streams import keys
from rankloom.compose.summed import numbers, product
from rankloom.recipe.methods import CORE, find_method

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankloom.compose.factors.recompress import Recompressed
    from rankloom.compose.factors.value import Factors
    from rankloom.recipe.plan import Plan, PlannedTarget

_SPACE = frozenset({"beta", "vectors"})


def terms(
    plan: Plan, target: PlannedTarget, digests: Sequence[str]
) -> tuple[list[Weighted], Loss | None]:
    """Return the factors of one target, and what they lost.

    Raises:
        RefError: weights or parameters do not suit the method.
        IncompatibleError: the method is not defined for these deltas.
        AdapterError: a factor cannot be read, or holds NaN or infinity.
    """
    matrices = Matrices(target)
    keep = None if find_method(plan.method).needs_rank else plan.keep
    made, found = [], []
    for expert in matrices.experts:
        streams = keys(plan.parameters.get("seed", 0), target, digests, expert)
        parts, weights = _combined(plan, target, matrices.of(expert), streams)
        if keep is None:
            made.append(join(parts, weights))
        else:
            found.append(recompress(parts, weights, rank=keep))
            made.append(found[-1].factors)
    kept = product(made, matrices)
    check_finite(kept.b.sum() + kept.a.sum(), kept.shape)
    return [Weighted(1.0, kept)], _loss(target, kept.rank, found) if found else None


def _loss(target: PlannedTarget, rank: int, found: Sequence[Recompressed]) -> Loss:
    missing = math.hypot(*(one.optimum for one in found))
    norm = math.hypot(*(one.norm for one in found))
    return Loss(target.name, rank, target.rank or rank, missing, norm)


def _combined(
    plan: Plan, target: PlannedTarget, parts: Sequence[Factors], streams: Sequence[int]
) -> tuple[Sequence[Factors], Sequence[float]]:
    """Return factors and coefficients whose sum is what the method makes of one matrix."""
    if plan.method not in CORE:
        return parts, numbers(plan, target, parts)
    space, rule = CORE[plan.method]
    given = dict(plan.parameters)
    pico = given.pop("pico", plan.method == "pico")
    if given.pop("seed", None) is not None:
        given["keys"] = streams
    space_parameters = {name: given.pop(name) for name in _SPACE & given.keys()}
    if find_method(plan.method).needs_rank:
        space_parameters["rank"] = plan.keep
    made = combine(
        space,
        rule,
        parts,
        target.weights,
        rule_parameters=given,
        space_parameters=space_parameters,
        pico=pico,
    )
    return [made], [1.0]
