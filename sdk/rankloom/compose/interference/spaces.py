"""How the spaces of two factors lie to each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from rankloom.compose.factors.value import Factors


NEGLIGIBLE = 1e-6
"""Directions that add less than this to a delta, relative to the strongest, are none: float32
factors that were rounded once have such everywhere."""


def bases(part: Factors) -> tuple[torch.Tensor, torch.Tensor]:
    """Return orthonormal bases of the columns of b and of the rows of a.

    Each column counts as much as the product with its row, so that what adds nothing spans nothing.

    Args:
        part: (out, r) and (r, in), float64.

    Returns:
        (out, k) and (in, l), k and l at most r.
    """
    columns = part.b * torch.linalg.vector_norm(part.a, dim=1)
    rows = part.a.T * torch.linalg.vector_norm(part.b, dim=0)
    return _basis(columns), _basis(rows)


def _basis(columns: torch.Tensor) -> torch.Tensor:
    u, values, _ = torch.linalg.svd(columns, full_matrices=False)
    spanned: torch.Tensor = u[:, values > NEGLIGIBLE * values[:1].sum()]
    return spanned


def overlap(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return the mean cos² of the principal angles between two spaces.

    Semantics: ``‖Uᵀ·V‖² / min(k, l)``, since the singular values of Uᵀ·V are the cosines
    (Björck & Golub 1973, *Numerical methods for computing angles between linear subspaces*). For
    random spaces of n dimensions it is max(k, l) / n on average.

    Args:
        one: (n, k), orthonormal columns.
        other: (n, l), likewise; 0 if either space has no dimension.
    """
    smaller = min(one.shape[1], other.shape[1])
    return float((one.T @ other).square().sum()) / smaller if smaller else 0.0


def crosstalk(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return ‖Xᵀ·Y‖ / (‖X‖·‖Y‖) of two matrices with as many rows; 0 if one of them is 0."""
    size = torch.linalg.vector_norm(one) * torch.linalg.vector_norm(other)
    return float(torch.linalg.vector_norm(one.T @ other) / size) if size else 0.0
