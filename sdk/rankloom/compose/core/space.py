"""Core Space: each delta as a small matrix, in bases that all share."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from rankloom.compose.core.linear import side_by_side, svd
from rankloom.compose.factors.value import Factors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankloom.compose.core.rules import Rule


class Space(NamedTuple):
    """Deltas ``Δₜ = u · coordinates[t] · v``.

    Attributes:
        u: (out, K), orthonormal columns.
        v: (L, in), orthonormal rows.
        coordinates: (N, K, L).
    """

    u: torch.Tensor
    v: torch.Tensor
    coordinates: torch.Tensor

    def lift(self, coordinates: torch.Tensor) -> Factors:
        """Return the delta that has these coordinates, (K, L), as factors."""
        k, l_ = coordinates.shape
        if k <= l_:
            return Factors(self.u, coordinates @ self.v)
        return Factors(self.u @ coordinates, self.v)


def core_space(parts: Sequence[Factors]) -> Space:
    """Return the deltas in the bases of all B side by side and of all A one above the other.

    *Accurate and Efficient Low-Rank Model Merging in Core Space*, arXiv 2509.17786: with the thin
    SVDs ``[B₁ … Bₙ] = U·Σ·Qᵀ`` and ``[A₁; …; Aₙ] = Q·Σ·Vᵀ``, ``Mₜ = Uᵀ·Bₜ·Aₜ·V``. Nothing is lost,
    since U and V span everything. What is done to single coordinates depends on the bases, and
    those on how a scale is shared between B and A: here it is all in B.

    Args:
        parts: at least one, of one shape; ranks may differ.

    Returns:
        Bases and coordinates, float64; K and L are the ranks of all B and of all A, at most Σr.

    Raises:
        IncompatibleError: no parts, or their shapes differ.
        AdapterError: a factor holds NaN or infinity.
    """
    joined = side_by_side(parts)
    u = svd(joined.b).u
    v = svd(joined.a).vh
    coordinates = [(u.T @ part.b.double()) @ (part.a.double() @ v.T) for part in parts]
    return Space(u, v, torch.stack(coordinates))


def merge_in_core(parts: Sequence[Factors], weights: Sequence[float], rule: Rule) -> Factors:
    """Merge coordinates in Core Space.

    Args:
        parts: at least one, of one shape; ranks may differ.
        weights: one for each.
        rule: what becomes of coordinates.

    Returns:
        Factors of at most Σr columns, float64.

    Raises:
        IncompatibleError: no parts, or their shapes differ.
        AdapterError: a factor holds NaN or infinity.
        RefError: the rule cannot work with these weights.
    """
    space = core_space(parts)
    return space.lift(rule(space.coordinates, weights))
