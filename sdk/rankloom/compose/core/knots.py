"""KnOTS: deltas side by side, and each one's part of their right singular vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import torch

from rankloom.compose.core.linear import side_by_side, svd
from rankloom.compose.factors.value import Factors
from rankloom.compose.tiles.arguments import option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankloom.compose.core.rules import Rule

Vectors: TypeAlias = Literal["unit", "scaled"]


def merge_knots(
    parts: Sequence[Factors],
    weights: Sequence[float],
    rule: Rule,
    *,
    vectors: Vectors = "unit",
) -> Factors:
    """Merge the parts that deltas have in the right singular vectors of all side by side.

    *Model Merging with SVD to Tie the KnOTS*, arXiv 2410.19735: ``[Δ₁ … Δₙ] = U·Σ·[V₁ … Vₙ]`` and
    the result is ``U·Σ·rule(V₁ … Vₙ)``. The authors' programs apply the rule to Σ·Vₜ instead, which
    matters to one that compares magnitudes: ``vectors="scaled"``.

    From factors: ``[B₁ … Bₙ] = Q·R`` and ``Aₜᵀ = Pₜ·Lₜ`` leave the SVD of ``[R₁·L₁ᵀ … Rₙ·Lₙᵀ]``,
    which is at most R × R.

    Args:
        parts: at least one, of one shape; ranks may differ.
        weights: one for each.
        rule: what becomes of the Vₜ, (N, K, in) with K ≤ Σr.
        vectors: ``unit`` or ``scaled``.

    Returns:
        Factors of at most Σr columns, float64.

    Raises:
        IncompatibleError: no parts, or their shapes differ.
        AdapterError: a factor holds NaN or infinity.
        RefError: the rule cannot work with these weights, or an option cannot be.
    """
    option("vectors", vectors, ("unit", "scaled"))
    joined = side_by_side(parts)
    q, r = torch.linalg.qr(joined.b)
    rows = [torch.linalg.qr(part.a.double().T) for part in parts]
    blocks = torch.split(r, [part.rank for part in parts], dim=1)
    small = [block @ found.R.T for block, found in zip(blocks, rows, strict=True)]
    u, values, vh = svd(torch.cat(small, dim=1))
    scaled = vectors == "scaled"
    vh = values[:, None] * vh if scaled else vh
    pieces = torch.split(vh, [block.shape[1] for block in small], dim=1)
    each = torch.stack([piece @ found.Q.T for piece, found in zip(pieces, rows, strict=True)])
    left = q @ u
    return Factors(left if scaled else left * values, rule(each, weights))
