"""Methods that find a coefficient for each delta: ΔW = Σ cᵢ·(Wᵢ′ − W)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from rankloom.change.formula import Product, Weighted
from rankloom.compose.factors.gram import gram
from rankloom.compose.factors.methods import coefficients
from rankloom.compose.factors.value import check_finite, join
from rankloom.compose.matrices import Matrices
from rankloom.recipe.methods import find_method

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankloom.compose.factors.value import Factors
    from rankloom.recipe.plan import Plan, PlannedTarget


def terms(plan: Plan, target: PlannedTarget) -> list[Weighted]:
    """Return the weighted changes of one target.

    Where each expert has coefficients of its own, the sum is formed here.

    Raises:
        RefError: the weights do not suit the method.
        IncompatibleError: the method is not defined for these deltas.
        AdapterError: a factor cannot be read, or holds NaN or infinity.
    """
    if find_method(plan.method).engine == "sum":
        zeros = torch.zeros(len(target.weights), len(target.weights)).double()
        return _weighted(target, _found(plan, target, zeros))
    matrices = Matrices(target)
    parts = [matrices.of(expert) for expert in matrices.experts]
    found = [_found(plan, target, gram(each)) for each in parts]
    if len(found) == 1:
        return _weighted(target, found[0])
    joined = [join(each, numbers) for each, numbers in zip(parts, found, strict=True)]
    return [Weighted(1.0, product(joined, matrices))]


def numbers(plan: Plan, target: PlannedTarget, parts: Sequence[Factors]) -> list[float]:
    """Return the coefficient of each adapter on one matrix; errors are those of :func:`terms`."""
    return _found(plan, target, gram(parts))


def _found(plan: Plan, target: PlannedTarget, products: torch.Tensor) -> list[float]:
    found = coefficients(plan.method, products, target.weights, plan.parameters)
    check_finite(found, target.shape or ())
    values: list[float] = found.tolist()
    return values


def _weighted(target: PlannedTarget, found: Sequence[float]) -> list[Weighted]:
    all_terms = [Weighted(found[part.part], part.change) for part in target.parts]
    # What counts nothing adds nothing but rank; a sum has at least one term.
    return [term for term in all_terms if term.weight != 0] or all_terms[:1]


def product(matrices: Sequence[Factors], of: Matrices) -> Product:
    """Return the factors of one target, for each expert perhaps, in the dtype they are kept in.

    Fewer columns than others have are filled up with zeros.
    """
    dtype = torch.float64 if of.is_wide else torch.float32
    rank = max(1, *(matrix.rank for matrix in matrices))  # PEFT knows no rank of 0
    b = torch.zeros(len(matrices), of.shape[-2], rank, dtype=dtype)
    a = torch.zeros(len(matrices), rank, of.shape[-1], dtype=dtype)
    for number, matrix in enumerate(matrices):
        b[number, :, : matrix.rank] = matrix.b
        a[number, : matrix.rank] = matrix.a
    if len(of.shape) == 2:
        return Product(b[0], a[0], of.is_embedding)
    return Product(b, a)
