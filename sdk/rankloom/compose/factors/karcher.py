"""The mean of directions on the sphere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from rankloom.compose.factors.directions import as_tensor, directions, shares, unit_length
from rankloom.compose.factors.slerp import OPPOSED
from rankloom.errors import IncompatibleError, RefError

if TYPE_CHECKING:
    from collections.abc import Sequence


def karcher(
    gram: torch.Tensor, weights: Sequence[float], *, max_iter: int = 100, tol: float = 1e-12
) -> torch.Tensor:
    """Return c of the weighted Karcher mean of the directions, with the weighted mean length.

    Semantics: the point x on the unit sphere at which ``Σ αₜ·log_x(uₜ) = 0``, where
    ``log_x(u) = θ/sin θ·(u − cos θ·x)``, found by steps ``x ← exp_x(Σ αₜ·log_x(uₜ))`` from the
    mean of the uₜ (Karcher 1977, *Riemannian center of mass and mollifier smoothing*), as
    ``karcher`` of mergekit, all in the span of the uₜ. mergekit takes equal weights, and after
    10 steps or below 1e-5 what it has; here a mean that was not reached is refused.

    Args:
        gram: (N, N).
        weights: none negative; αₜ = wₜ / Σw.
        max_iter: steps at most.
        tol: length of a step at which the mean is reached.

    Returns:
        (N,), float64.

    Raises:
        RefError: a weight is negative, or all are 0.
        IncompatibleError: two deltas are opposed, or the mean was not reached.
    """
    numbers = as_tensor(weights, gram)
    if (numbers < 0).any():
        message = f"MRG003 karcher takes a mean, which has no negative weights: {list(weights)}"
        raise RefError(message, hint="use exact or multislerp for negative weights")
    known = directions(gram)
    length = (shares(numbers) * known.norms).sum()
    used = known.exist & (numbers > 0)
    if not used.any():
        return torch.zeros_like(numbers)
    alphas = shares(torch.where(used, numbers, 0.0))
    mean = _mean(alphas, known.cosines, max_iter, tol)
    return torch.where(used, length * mean / known.norms, 0.0)


def _mean(alphas: torch.Tensor, cosines: torch.Tensor, max_iter: int, tol: float) -> torch.Tensor:
    """Return the mean as coefficients of the directions."""
    mean = _normalised(alphas, cosines)
    for _ in range(max_iter):
        step = _step(mean, alphas, cosines)
        size = unit_length(step, cosines)
        if size <= tol:
            return mean
        mean = torch.cos(size) * mean + torch.sinc(size / torch.pi) * step
        mean = _normalised(mean, cosines)
    message = f"karcher: no mean of the directions was reached in {max_iter} steps"
    raise IncompatibleError(message, hint="raise max_iter or tol, or use multislerp")


def _step(mean: torch.Tensor, alphas: torch.Tensor, cosines: torch.Tensor) -> torch.Tensor:
    dots = (cosines @ mean).clamp(-1, 1)
    angles = torch.acos(dots)
    if (torch.pi - angles[alphas > 0] < OPPOSED).any():
        message = "karcher: a delta is opposed to the mean of all, so no way there is shortest"
        raise IncompatibleError(message, hint="use exact weights for this target")
    # torch.sinc(x) is sin(πx)/(πx), which is 1 at 0.
    pulls = torch.where(alphas > 0, alphas / torch.sinc(angles / torch.pi), 0.0)
    return pulls - (pulls * dots).sum() * mean


def _normalised(coefficients: torch.Tensor, cosines: torch.Tensor) -> torch.Tensor:
    length = unit_length(coefficients, cosines)
    if length <= OPPOSED * coefficients.abs().sum():
        message = "karcher: the directions of the deltas cancel, so they have no mean"
        raise IncompatibleError(message, hint="use other weights, or exact ones")
    return coefficients / length
