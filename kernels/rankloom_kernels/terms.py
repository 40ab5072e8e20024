"""Low-rank deltas as values, one by one and folded into one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Self

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence


class Term(NamedTuple):
    """One low-rank delta ``coefficient · b @ a``.

    Attributes:
        b: (out, r), any floating dtype.
        a: (r, in), any floating dtype.
        coefficient: weight times scale. It stays a float64 until it meets float32 (or float64)
            factors: multiplied into bfloat16 factors it alone would change 3 to 10 % of the
            elements of the result.
    """

    b: torch.Tensor
    a: torch.Tensor
    coefficient: float = 1.0

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the delta."""
        return self.b.shape[0], self.a.shape[1]

    def transposed(self) -> Term:
        """Return the term whose delta is the transpose, for a weight stored as (in, out)."""
        return Term(self.a.T, self.b.T, self.coefficient)


class Folded(NamedTuple):
    """The sum of several terms as one product ``b @ a``.

    Attributes:
        b: (out, R), float32 or float64; coefficients are multiplied in.
        a: (R, in), of the same dtype.
        exact_b: ``b`` in float64, before it was rounded to its dtype.
        reach: (out,), no element of that row of the delta is larger: ‖bᵢ‖ · maxⱼ ‖aⱼ‖.
    """

    b: torch.Tensor
    a: torch.Tensor
    exact_b: torch.Tensor
    reach: torch.Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the delta."""
        return self.b.shape[0], self.a.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """What the delta is accumulated in."""
        return self.b.dtype

    def rows(self, start: int, stop: int) -> Self:
        """Return the part that makes the delta's rows ``start`` to ``stop``; nothing is copied."""
        rows = slice(start, stop)
        return type(self)(self.b[rows], self.a, self.exact_b[rows], self.reach[rows])


def fold(terms: Sequence[Term], dtype: torch.dtype = torch.float32) -> Folded:
    """Return the one product that equals the sum of ``terms``.

    Semantics: ``b = [c₁·b₁ … cₙ·bₙ]`` (out, Σr), ``a = [a₁; …; aₙ]`` (Σr, in); products are
    formed in float64 and rounded to ``dtype``.

    Args:
        terms: at least one, all of one shape and on one device.
        dtype: float32 or float64.

    Raises:
        ValueError: no terms, or their shapes differ.
    """
    shapes = {term.shape for term in terms}
    if len(shapes) != 1:
        message = f"terms of one merge need one shape, got {sorted(shapes) or 'no terms'}"
        raise ValueError(message)
    exact_b = torch.cat([term.b.double() * term.coefficient for term in terms], dim=1)
    b = exact_b.to(dtype)
    a = torch.cat([term.a.to(dtype) for term in terms], dim=0)
    return Folded(b, a, exact_b, b.norm(dim=1) * a.norm(dim=0).max())
