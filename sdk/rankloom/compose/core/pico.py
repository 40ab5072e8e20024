"""Pico: calm the output directions that many adapters crowd, merge, restore the length."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from rankloom.compose.core.linear import side_by_side, svd
from rankloom.compose.factors.gram import gram
from rankloom.compose.factors.value import Factors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def calm(parts: Sequence[Factors]) -> tuple[Factors, ...]:
    """Return the deltas with directions of B scaled down that hold much of the energy of all B.

    *Crowded in B-Space: Calibrating Shared Directions for LoRA Merging*, arXiv 2604.16826: with
    ``[B₁ … Bₙ] = U·Σ·Vᵀ`` and ``sⱼ = σⱼ² / Σ σ²``, direction j keeps ``αⱼ = 1 / (1 + (N − 1)·sⱼ)``
    of itself: ``B̃ₜ = Bₜ + U·diag(α − 1)·Uᵀ·Bₜ``. Like the directions, this depends on how a delta
    is shared between B and A.

    Args:
        parts: at least one, of one shape; ranks may differ.

    Raises:
        IncompatibleError: no parts, or their shapes differ.
        AdapterError: a factor holds NaN or infinity.
    """
    found = svd(side_by_side(parts).b)
    energies = found.values.square()
    shares = energies / energies.sum()
    less = 1 / (1 + (len(parts) - 1) * shares) - 1
    return tuple(
        Factors(b + found.u @ (less[:, None] * (found.u.T @ b)), part.a.double())
        for part, b in ((part, part.b.double()) for part in parts)
    )


def with_pico(parts: Sequence[Factors], merge: Callable[[Sequence[Factors]], Factors]) -> Factors:
    """Calm the deltas, merge them, and give the result the mean length of the deltas.

    ``γ = mean ‖Δₜ‖ / ‖merged‖`` of the deltas as they were (section 4.2 of the paper), so a factor
    of the method, such as its lambda, is without effect.

    Args:
        parts: at least one, of one shape; ranks may differ.
        merge: any method that gives factors.

    Raises:
        IncompatibleError: no parts, or their shapes differ.
        AdapterError: a factor holds NaN or infinity.
    """
    merged = merge(calm(parts))
    wanted = gram(parts).diagonal().sqrt().mean()
    length = gram([merged]).diagonal().sqrt()[0]
    ratio = torch.where(length > 0, wanted / length, 0.0)
    return Factors(merged.b.double() * ratio, merged.a.double())
