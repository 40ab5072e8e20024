"""What becomes of the coordinates of several deltas: one class for each rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from rankloom.compose.core.linear import Svd, svd
from rankloom.compose.tiles.arguments import densities_of, one_for_each
from rankloom.compose.tiles.consensus import Consensus, Total
from rankloom.compose.tiles.threshold import count_of
from rankloom_kernels.masks import kept

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankloom.compose.tiles.arguments import Densities
    from rankloom.compose.tiles.consensus import DivideBy, SignElection, Vote


class Rule(Protocol):
    """Makes one matrix of N."""

    def __call__(self, coordinates: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
        """Return the merged coordinates.

        Args:
            coordinates: (N, K, L) float64; stays as it is.
            weights: one for each.

        Returns:
            (K, L) float64.

        Raises:
            RefError: there is another number of weights, or they do not suit the rule.
        """


@dataclass(frozen=True, slots=True)
class TaskArithmetic:
    """``lambda · Σ wₜ·Mₜ`` (arXiv 2212.04089): in a space that loses nothing, the exact sum."""

    lambda_: float = 1.0

    def __call__(self, coordinates: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
        """See :class:`Rule`."""
        each = one_for_each(weights, coordinates, "weights")
        return Total(each, self.lambda_)(coordinates.clone())


@dataclass(frozen=True, slots=True)
class Ties:
    """TIES (arXiv 2306.01708) on coordinates; options as of :func:`rankloom.compose.tiles`' own."""

    density: Densities
    sign_election: SignElection = "weighted"
    vote: Vote = "total"
    divide_by: DivideBy = "weights"
    lambda_: float = 1.0

    def __call__(self, coordinates: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
        """See :class:`Rule`."""
        each = one_for_each(weights, coordinates, "weights")
        merge = Consensus(each, self.sign_election, self.vote, self.divide_by, self.lambda_)
        densities = densities_of(self.density, coordinates)
        pairs = zip(coordinates, densities, strict=True)
        return merge(torch.stack([_largest(matrix, density) for matrix, density in pairs]))


def _largest(matrix: torch.Tensor, density: float) -> torch.Tensor:
    """Keep the largest elements, and all that are as large as the smallest of them."""
    if matrix.numel() == 0:
        return matrix
    smaller = matrix.numel() - count_of(density, matrix.numel())
    size = matrix.abs()
    limit = size.flatten().kthvalue(smaller + 1).values
    return torch.where(size >= limit, matrix, 0.0)


@dataclass(frozen=True, slots=True)
class Dare:
    """DARE (arXiv 2311.03099): drop coordinates at random, divide by the density, add up.

    Attributes:
        density: probability with which a coordinate stays.
        keys: the deltas' streams, from :func:`rankloom_kernels.masks.stream_key`.
        lambda_: factor of the result.
    """

    density: Densities
    keys: Sequence[int]
    lambda_: float = 1.0

    def __call__(self, coordinates: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
        """See :class:`Rule`."""
        each = one_for_each(weights, coordinates, "weights")
        densities = densities_of(self.density, coordinates)
        keys = one_for_each(self.keys, coordinates, "keys")
        dropped = [
            _drop(matrix, density, key)
            for matrix, density, key in zip(coordinates, densities, keys, strict=True)
        ]
        return Total(each, self.lambda_)(torch.stack(dropped))


def _drop(matrix: torch.Tensor, density: float, key: int) -> torch.Tensor:
    stays = kept(key, 0, matrix.numel(), density, matrix.device).view(matrix.shape)
    return torch.where(stays, matrix / density, 0.0)


@dataclass(frozen=True, slots=True)
class Tsv:
    """TSV-Merge (*Task Singular Vectors*, arXiv 2412.00081).

    Of every wₜ·Mₜ the share 1/N of its singular components with the largest values; then all left
    vectors together are replaced by the nearest orthonormal ones (Procrustes), and all right ones.
    Components whose value is 0 have no direction of their own and are left out, and so are
    directions in which the vectors cancel.
    """

    lambda_: float = 1.0

    def __call__(self, coordinates: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
        """See :class:`Rule`."""
        each = one_for_each(weights, coordinates, "weights")
        count = max(1, min(coordinates.shape[1:]) // len(coordinates))
        parts = [
            _first(svd(matrix * weight), count)
            for matrix, weight in zip(coordinates, each, strict=True)
        ]
        u = _nearest_orthonormal(torch.cat([part.u for part in parts], dim=1))
        vh = _nearest_orthonormal(torch.cat([part.vh for part in parts]))
        values = torch.cat([part.values for part in parts])
        return self.lambda_ * (u * values) @ vh


def _first(whole: Svd, count: int) -> Svd:
    return Svd(whole.u[:, :count], whole.values[:count], whole.vh[:count])


def _nearest_orthonormal(vectors: torch.Tensor) -> torch.Tensor:
    """Return P·Qᵀ of the decomposition P·S·Qᵀ."""
    found = svd(vectors)
    return found.u @ found.vh


@dataclass(frozen=True, slots=True)
class IsoC:
    """Iso-C (*No Task Left Behind*, arXiv 2502.04959).

    Every singular value of Σ wₜ·Mₜ becomes the mean of all. Directions whose value is 0 stay at 0
    and do not count in the mean.
    """

    lambda_: float = 1.0

    def __call__(self, coordinates: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
        """See :class:`Rule`."""
        total = svd(TaskArithmetic()(coordinates, weights))
        if len(total.values) == 0:
            return coordinates.new_zeros(coordinates.shape[1:])
        return self.lambda_ * total.values.mean() * (total.u @ total.vh)
