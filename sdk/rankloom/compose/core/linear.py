"""Decompositions in float64 that leave no choice of signs, and no directions that are noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from rankloom.compose.factors.value import Factors, check_finite, join

if TYPE_CHECKING:
    from collections.abc import Sequence

EPS = torch.finfo(torch.float64).eps


def side_by_side(parts: Sequence[Factors]) -> Factors:
    """Return all b side by side and all a one above the other, float64.

    Raises:
        IncompatibleError: there are no parts, or their shapes differ.
        AdapterError: a factor holds NaN or infinity.
    """
    joined = join(parts)
    lengths = [torch.linalg.vector_norm(factor) for factor in joined]
    check_finite(torch.stack(lengths), joined.shape)
    return joined


class Svd(NamedTuple):
    """``u @ diag(values) @ vh``.

    Attributes:
        u: (m, k), orthonormal columns; the largest element of each is positive.
        values: (k,), falling, none of them 0.
        vh: (k, n), orthonormal rows.
    """

    u: torch.Tensor
    values: torch.Tensor
    vh: torch.Tensor


def svd(matrix: torch.Tensor) -> Svd:
    """Return the singular value decomposition of what a matrix holds beyond rounding errors.

    Directions whose value is below ``max(m, n) · 2⁻⁵²`` of the largest could be any, so they are
    left out; of a zero matrix nothing is left.

    Args:
        matrix: (m, n) float64.
    """
    tall = matrix.shape[0] >= matrix.shape[1]
    # QR first: of a tall matrix only the small factor needs the iteration.
    q, r = torch.linalg.qr(matrix if tall else matrix.T)
    u, values, vh = torch.linalg.svd(r, full_matrices=False)
    left, right = (q @ u, vh) if tall else (vh.T, (q @ u).T)
    kept = rank_of(values, max(matrix.shape))
    left, right = left[:, :kept], right[:kept]
    signs = signs_of(left)
    return Svd(left * signs, values[:kept], right * signs[:, None])


def rank_of(values: torch.Tensor, size: int) -> int:
    """Return how many of falling singular values of a matrix of that size are no rounding error."""
    if len(values) == 0:
        return 0
    return int((values > values[0] * size * EPS).sum())


def signs_of(columns: torch.Tensor) -> torch.Tensor:
    """Return ±1 for each column: the sign of its largest element."""
    if columns.numel() == 0:
        return columns.new_ones(columns.shape[1])
    largest = columns.gather(0, columns.abs().argmax(0, keepdim=True))[0]
    return torch.where(largest < 0, -1.0, 1.0).to(columns)
