"""How the rank of an approximation is chosen from the singular values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from rankloom.errors import RefError

if TYPE_CHECKING:
    from typing import TypeAlias

INVISIBLE = 2.0**-24
"""Relative size of what rounding the factors to float32 changes anyway."""


@dataclass(frozen=True, slots=True)
class Energy:
    """The smallest rank that keeps a share of ‖ΔW‖².

    Attributes:
        share: above 0, at most 1.
        max_rank: never more than this, whatever is lost.
    """

    share: float = 0.999
    max_rank: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            message = f"an energy of {self.share!r} cannot be kept"
            raise RefError(message, hint="give a share above 0 and at most 1, such as 0.999")
        if self.max_rank is not None:
            check_rank(self.max_rank)


Rank: TypeAlias = int | Energy | Literal["auto"]
"""A number; an energy; or ``auto``: nothing is lost that float32 factors could hold."""


def check_rank(rank: object) -> int:
    """Return a rank that somebody gave.

    Raises:
        RefError: it is no whole number of at least 1.
    """
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        message = f"{rank!r} is not a rank"
        raise RefError(message, hint="a rank is a whole number from 1")
    return rank


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
