"""Lengths and angles of deltas, from their inner products."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from rankloom.errors import RefError

if TYPE_CHECKING:
    from collections.abc import Sequence


class Directions(NamedTuple):
    """What a Gram matrix says of N deltas.

    Attributes:
        norms: (N,), Frobenius norms.
        cosines: (N, N), of the angles between them; 0 where a delta is 0 and has no direction.
    """

    norms: torch.Tensor
    cosines: torch.Tensor

    @property
    def exist(self) -> torch.Tensor:
        """(N,), whether a delta has a direction at all."""
        return self.norms > 0


def directions(gram: torch.Tensor) -> Directions:
    """Return norms and cosines; cosines beyond ±1 by rounding become ±1."""
    norms = gram.diagonal().sqrt()
    units = torch.where(norms > 0, 1 / norms, 0.0)
    return Directions(norms, (gram * units * units[:, None]).clamp(-1, 1))


def weighted(gram: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the Gram matrix of wₜ·Δₜ."""
    return gram * weights * weights[:, None]


def as_tensor(weights: Sequence[float], gram: torch.Tensor) -> torch.Tensor:
    """Return weights as (N,) float64, one for each delta.

    Raises:
        RefError: there is another number of them.
    """
    if len(weights) != gram.shape[0]:
        message = f"MRG003 {gram.shape[0]} deltas, but {len(weights)} weights"
        raise RefError(message, hint="give one weight for each adapter")
    return torch.tensor(list(weights), dtype=torch.float64, device=gram.device)


def shares(weights: torch.Tensor) -> torch.Tensor:
    """Return weights divided by their sum.

    Raises:
        RefError: they cancel, so there is nothing to divide by.
    """
    total = weights.sum()
    if total.abs() <= 1e-12 * weights.abs().sum():
        message = f"MRG003 the weights {weights.tolist()} add up to 0 and cannot be normalised"
        raise RefError(message, hint="give weights with another sum, or a method without shares")
    return weights / total


def unit_length(coefficients: torch.Tensor, cosines: torch.Tensor) -> torch.Tensor:
    """Return the norm of Σ cₜ·uₜ, uₜ being the directions, as a scalar tensor."""
    return (coefficients @ cosines @ coefficients).clamp(min=0).sqrt()
