"""Deltas in the few dimensions that they span."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from rankloom.compose.factors.value import Factors, check_finite, join

if TYPE_CHECKING:
    from collections.abc import Sequence


def cores(parts: Sequence[Factors]) -> tuple[Factors, ...]:
    """Return copies of all deltas in shared orthonormal bases, of at most R × R with R = Σr.

    Semantics: ``Bₜ = Q·bₜ`` and ``Aₜ = aₜ·Pᵀ`` for one Q (out, K) and one P (in, L) with
    orthonormal columns, which themselves are never formed. So inner products, norms, singular
    values and principal angles of the copies are those of the deltas (the space of *Accurate and
    Efficient Low-Rank Model Merging in Core Space*, arXiv 2509.17786).

    Args:
        parts: at least one, of one shape; ranks may differ.

    Returns:
        For each part its ``Factors(bₜ (K, r), aₜ (r, L))``, float64.

    Raises:
        IncompatibleError: no parts, or their shapes differ.
        AdapterError: a factor holds NaN or infinity.
    """
    b, a = triangles(join(parts))
    ranks = [part.rank for part in parts]
    pairs = zip(torch.split(b, ranks, dim=1), torch.split(a, ranks, dim=1), strict=True)
    return tuple(Factors(left, right.T) for left, right in pairs)


def triangles(factors: Factors) -> tuple[torch.Tensor, torch.Tensor]:
    """Return R_B (K, r) and R_A (L, r) of ``b = Q·R_B`` and ``aᵀ = P·R_A``.

    By Householder reflections, which err in each column by 2⁻⁵³ of that column: adapters whose
    factors differ by orders of magnitude take no digits from each other.

    Raises:
        AdapterError: a factor holds NaN or infinity.
    """
    b = torch.linalg.qr(factors.b, mode="r").R
    a = torch.linalg.qr(factors.a.T, mode="r").R
    check_finite(b.sum() + a.sum(), factors.shape)
    return b, a


def spectrum(parts: Sequence[Factors], coefficients: Sequence[float] | None = None) -> torch.Tensor:
    """Return the singular values of Σ cₜ·Δₜ, falling, float64.

    Args:
        parts: what :func:`cores` gave; their products are at most R × R.
        coefficients: one for each part; default: all 1.
    """
    joined = join(parts, coefficients)
    values: torch.Tensor = torch.linalg.svdvals(joined.b @ joined.a)
    return values
