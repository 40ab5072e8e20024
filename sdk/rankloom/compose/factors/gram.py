"""Inner products of deltas."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from rankloom.compose.factors.value import check_finite, join

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankloom.compose.factors.value import Factors


def gram(parts: Sequence[Factors]) -> torch.Tensor:
    """Return the matrix of ⟨Δa, Δb⟩ = Σᵢⱼ Δa[i, j]·Δb[i, j].

    Semantics: ``⟨Δa, Δb⟩ = Σ (Baᵀ·Bb ∘ Aa·Abᵀ)``, since ⟨BaAa, BbAb⟩ = tr(AaᵀBaᵀBbAb). It costs
    2·R²·(out + in) operations with R = Σr. Like the dense sum in float64 it errs by some
    2⁻⁵³·‖Ba‖‖Aa‖·‖Bb‖‖Ab‖.

    Args:
        parts: at least one, of one shape; ranks may differ.

    Returns:
        (N, N), float64, symmetric, no negative number on its diagonal.

    Raises:
        IncompatibleError: no parts, or their shapes differ.
        AdapterError: a factor holds NaN or infinity.
    """
    joined = join(parts)
    products = (joined.b.T @ joined.b) * (joined.a @ joined.a.T)
    ranks = torch.tensor([part.rank for part in parts], device=products.device)
    owner = torch.repeat_interleave(torch.arange(len(parts), device=products.device), ranks)
    rows = products.new_zeros(len(parts), products.shape[1]).index_add_(0, owner, products)
    sums = rows.new_zeros(len(parts), len(parts)).index_add_(1, owner, rows)
    sums = (sums + sums.T) / 2
    check_finite(sums, joined.shape)
    sums.diagonal().clamp_(min=0)
    return sums
