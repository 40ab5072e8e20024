"""A sum in which every delta is as strong as its weight says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from rankloom.compose.factors.directions import as_tensor, directions

if TYPE_CHECKING:
    from collections.abc import Sequence


def norm_balanced(gram: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
    """Return cₜ = wₜ·n/‖Δₜ‖ with ``n = Σ |wₜ|·‖Δₜ‖ / Σ |wₜ|``.

    Direction and magnitude are merged apart, so that a delta that is merely larger does not
    outweigh the others: the decoupling of *Decouple and Orthogonalize: A Data-Free Framework for
    LoRA Merging* (arXiv 2505.15875), with one magnitude for a whole target and without its
    orthogonalisation. Deltas of one length give the exact sum.

    Args:
        gram: (N, N).
        weights: one for each delta; the sign stays. Deltas that are 0 take no part in the mean.

    Returns:
        (N,), float64.
    """
    numbers = as_tensor(weights, gram)
    known = directions(gram)
    sizes = torch.where(known.exist, numbers.abs(), 0.0)
    if not sizes.any():
        return torch.zeros_like(numbers)
    common = (sizes * known.norms).sum() / sizes.sum()
    return torch.where(known.exist, numbers * common / known.norms, 0.0)
