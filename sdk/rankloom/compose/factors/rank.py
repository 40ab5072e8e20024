"""How the rank of an approximation is chosen from the singular values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from rankloom.recipe.rank import Energy, check_rank

if TYPE_CHECKING:
    from rankloom.recipe.rank import Rank

INVISIBLE = 2.0**-24
"""Relative size of what rounding the factors to float32 changes anyway."""


def choose(values: torch.Tensor, rank: Rank, noise: float = 0.0) -> int:
    """Return how many singular values to keep, at least one.

    Args:
        values: singular values, falling.
        rank: what the caller asks for.
        noise: values up to this are rounding errors of a zero; none of them is kept.

    Raises:
        RefError: ``rank`` is none of the three.
    """
    real = int((values > noise).sum())
    if isinstance(rank, Energy):
        kept = _enough(values, 1 - rank.share)
        kept = kept if rank.max_rank is None else min(kept, rank.max_rank)
    elif rank == "auto":
        kept = _enough(values, INVISIBLE**2)
    else:
        kept = check_rank(rank)
    return max(1, min(kept, real))


def _enough(values: torch.Tensor, lost: float) -> int:
    """Return the smallest k for which the squares behind k are at most a share ``lost`` of all."""
    rest = tails(values)
    return int((rest > lost * rest[0]).sum())


def tails(values: torch.Tensor) -> torch.Tensor:
    """Return Σ_{j > k} σⱼ² for k = 0 … n, summed from the smallest value up, so that none is lost.

    Args:
        values: (n,), falling.

    Returns:
        (n + 1,), falling; the last is 0.
    """
    sums = values.square().flip(0).cumsum(0).flip(0)
    return torch.cat([sums, sums.new_zeros(1)])
