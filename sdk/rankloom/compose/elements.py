"""Methods that decide element by element: computed when it is applied, or approximated once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rankloom.change.formula import ByRows, Weighted
from rankloom.compose.factors.value import Factors
from rankloom.compose.losses import Loss
from rankloom.compose.matrices import Matrices
from rankloom.compose.streams import keys
from rankloom.compose.summed import product
from rankloom.compose.tiles.methods import combine
from rankloom.compose.tiles.to_factors import to_factors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rankloom.change.formula import Portion
    from rankloom.recipe.plan import Plan, PlannedTarget


def terms(
    plan: Plan, target: PlannedTarget, digests: Sequence[str]
) -> tuple[list[Weighted], Loss | None]:
    """Return one target's change by rows; or its factors, and what they lost.

    Raises:
        RefError: weights or parameters do not suit the method.
        IncompatibleError: the method is not defined for these deltas.
        AdapterError: a factor cannot be read, or holds NaN or infinity.
    """
    matrices = Matrices(target)
    open_ = _Opening(plan.method, plan.parameters, target, tuple(digests))
    if plan.keep is None:
        return [Weighted(1.0, ByRows(plan.method, matrices.shape, open_))], None
    assert isinstance(plan.keep, int)  # noqa: S101 - Method.read_rank took nothing else
    shape = (matrices.shape[-2], matrices.shape[-1])
    found = [to_factors(open_(expert), shape, rank=plan.keep) for expert in matrices.experts]
    kept = product([Factors(one.b, one.a) for one in found], matrices)
    missing = math.hypot(*(one.residual * one.norm for one in found))
    norm = math.hypot(*(one.norm for one in found))
    loss = Loss(target.name, kept.rank, min(shape), missing, norm, optimal=False)
    return [Weighted(1.0, kept)], loss


@dataclass(frozen=True, slots=True, eq=False)
class _Opening:
    """See ``ByRows.open``; picklable, and nothing is read before it is called."""

    method: str
    parameters: Mapping[str, Any]
    target: PlannedTarget
    digests: tuple[str, ...]

    def __call__(self, expert: int | None) -> Portion:
        parameters = dict(self.parameters)
        if (seed := parameters.pop("seed", None)) is not None:
            parameters["keys"] = keys(seed, self.target, self.digests, expert)
        parts = Matrices(self.target).of(expert)
        return combine(self.method, parts, self.target.weights, parameters).rows
