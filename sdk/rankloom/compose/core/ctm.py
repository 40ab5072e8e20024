"""CtM: compress to dimensions that all adapters share, then merge there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from rankloom.compose.core.linear import svd
from rankloom.compose.core.space import Space, core_space
from rankloom.errors import RefError
from rankloom.recipe.rank import check_rank

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankloom.compose.core.rules import Rule
    from rankloom.compose.factors.value import Factors

ROUNDS = 1000
"""Improvements of the bases at most; a few dozen are usual."""

TOLERANCE = 1e-12
"""Share of the energy by which a round must improve, or it was the last."""


def compress_then_merge(
    parts: Sequence[Factors],
    weights: Sequence[float],
    rule: Rule,
    *,
    rank: int,
    beta: float = 0.0,
) -> Factors:
    """Find ``rank`` dimensions that serve all deltas alike, and merge what each has in them.

    *Compress then Merge: From Multiple LoRAs into One Low-Rank Adapter*, arXiv 2606.03723, computed
    in Core Space. The bases maximise ``Σ ‖Uᵀ·Tₜ·V‖²`` (Tucker-2: started by HOSVD, improved by
    HOOI) for ``Tₜ = (β·‖Δₜ‖ + (1 − β)·mean‖Δ‖) · Δₜ / ‖Δₜ‖``, so that with β = 0, the default of
    the authors' programs, a delta counts no more for being long. Merged are the coordinates
    ``Uᵀ·Δₜ·V`` of the deltas as they are.

    Args:
        parts: at least one, of one shape; ranks may differ.
        weights: one for each.
        rule: what becomes of coordinates, (N, rank, rank).
        rank: columns of the result; fewer where the deltas span fewer.
        beta: from 0 (all deltas count alike) to 1 (by their length).

    Returns:
        Factors of ``rank`` columns, float64.

    Raises:
        IncompatibleError: no parts, or their shapes differ.
        AdapterError: a factor holds NaN or infinity.
        RefError: an option cannot be, or the rule cannot work with these weights.
    """
    if not 0 <= beta <= 1:
        message = f"MRG003 beta is {beta!r}"
        raise RefError(message, hint="give a number from 0 to 1")
    space = core_space(parts)
    u, v = shared_bases(_targets(space.coordinates, beta), check_rank(rank))
    shared = Space(space.u @ u, v.T @ space.v, u.T @ space.coordinates @ v)
    return shared.lift(rule(shared.coordinates, weights))


def _targets(coordinates: torch.Tensor, beta: float) -> torch.Tensor:
    """Return the deltas as they count for the bases; one that is 0 stays so."""
    norms = torch.linalg.matrix_norm(coordinates)
    lengths = beta * norms + (1 - beta) * norms.mean()
    return coordinates * torch.where(norms > 0, lengths / norms, 0.0)[:, None, None]


def shared_bases(targets: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return orthonormal u (K, rank) and v (L, rank) with a locally largest Σ ‖uᵀ·Tₜ·v‖².

    Args:
        targets: (N, K, L) float64.
        rank: columns of each; fewer where the targets span fewer.
    """
    u = _leading(targets, rank)
    v = _leading(targets.mT, rank)
    energy = 0.0
    for _ in range(ROUNDS):
        u = _leading(targets @ v, rank)
        v = _leading(targets.mT @ u, rank)
        before, energy = energy, float((u.T @ targets @ v).square().sum())
        if energy - before <= TOLERANCE * energy:
            break
    return u, v


def _leading(targets: torch.Tensor, rank: int) -> torch.Tensor:
    """Return the first left singular vectors of all targets side by side."""
    return svd(torch.cat(list(targets), dim=1)).u[:, :rank]
