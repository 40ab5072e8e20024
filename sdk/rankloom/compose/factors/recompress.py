"""The best approximation of a sum of deltas by fewer columns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from rankloom.compose.factors.core import triangles
from rankloom.compose.factors.rank import choose, tails
from rankloom.compose.factors.value import Factors, join

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankloom.recipe.rank import Rank


@dataclass(frozen=True, slots=True, eq=False)
class Recompressed:
    """An approximation of ΔW, and how good it is.

    Attributes:
        factors: float64, of rank k; the square root of each singular value is in both.
        values: (k,), the singular values that were kept, falling, float64.
        optimum: Frobenius norm of what is missing. No matrix of rank k is nearer to ΔW (Eckart
            and Young), so it is the error and the smallest possible one at once.
        norm: Frobenius norm of ΔW.
    """

    factors: Factors
    values: torch.Tensor
    optimum: float
    norm: float

    @property
    def rank(self) -> int:
        """The k that was chosen."""
        return self.factors.rank

    @property
    def error(self) -> float:
        """What is missing, as a share of ‖ΔW‖; 0 where ΔW is 0."""
        return self.optimum / self.norm if self.norm else 0.0


def recompress(
    parts: Sequence[Factors], coefficients: Sequence[float] | None = None, *, rank: Rank
) -> Recompressed:
    """Return the nearest delta of a smaller rank to Σ cₜ·Δₜ.

    Semantics: ``B̂ = Q·R_B``, ``Âᵀ = P·R_A`` and ``R_B·R_Aᵀ = U·Σ·Vᵀ`` give the singular vectors
    ``Q·U`` and ``P·V`` of ΔW. Neither Q nor P is formed: ``ΔW·P·V = Q·U·Σ``, so the result is
    ``(B̂·R_Aᵀ·V_k·Σ_k^-½)(Σ_k^-½·U_kᵀ·R_B·Â)``, which is ``(Q·U_k·√Σ_k)(√Σ_k·V_kᵀ·Pᵀ)``.

    All of it is float64, and costs some 4·R²·(out + in) operations; a dense SVD costs
    out·in·min(out, in). The residual is ``optimum`` up to some 2⁻⁵⁰·Σ‖bⱼ‖·‖aⱼ‖ over all columns,
    which is nothing beside ‖ΔW‖ unless the deltas cancel.

    The largest element of each column of b is positive, which leaves no choice of signs.

    Args:
        parts: at least one, of one shape; ranks may differ.
        coefficients: one for each part; default: all 1.
        rank: a number, ``Energy(share, max_rank)`` or ``"auto"``. If ΔW has fewer dimensions,
            only those are returned; of ΔW = 0 one column of zeros.

    Raises:
        IncompatibleError: no parts, or their shapes differ.
        AdapterError: a factor holds NaN or infinity, or overflows with its coefficient.
        RefError: ``rank`` is none of the three.
    """
    joined = join(parts, coefficients)
    r_b, r_a = triangles(joined)
    u, values, vh = torch.linalg.svd(r_b @ r_a.T, full_matrices=False)
    kept = choose(values, rank, _noise(r_b, r_a))
    root = torch.where(values > 0, values.rsqrt(), 0.0)[:kept]
    columns = (root[:, None] * vh[:kept] @ r_a) @ joined.b.T  # of b, one after another in memory
    rows = (root[:, None] * u[:, :kept].T @ r_b) @ joined.a
    signs = _signs(columns)
    rest = tails(values)
    return Recompressed(
        Factors(columns.mul_(signs).T, rows.mul_(signs)),
        values[:kept],
        math.sqrt(float(rest[kept])),
        math.sqrt(float(rest[0])),
    )


def _noise(r_b: torch.Tensor, r_a: torch.Tensor) -> float:
    """Return a bound of the core's rounding errors: R·2⁻⁵² of each product of two columns."""
    sizes = torch.linalg.vector_norm(r_b, dim=0) * torch.linalg.vector_norm(r_a, dim=0)
    return float(sizes.sum()) * r_b.shape[1] * torch.finfo(torch.float64).eps


def _signs(columns: torch.Tensor) -> torch.Tensor:
    """Return (k, 1), -1 for each column whose largest element is negative."""
    largest = columns.gather(1, columns.abs().argmax(dim=1, keepdim=True))
    return torch.where(largest < 0, -1.0, 1.0).to(columns)
