"""Low-rank deltas as values, one by one and folded into one."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple, Self

import torch

from rankloom_kernels.narrow import Narrow, joined, narrow

if TYPE_CHECKING:
    from collections.abc import Sequence

_AT_ONCE = 8192
"""Rows or columns of which squares are in memory."""


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
        raw_b: (out, R), ``b`` before coefficients were multiplied in.
        coefficients: (R,) float64, what each column of ``raw_b`` is multiplied with.
        reach: (out,), no element of that row of the delta is larger: ‖bᵢ‖ · maxⱼ ‖aⱼ‖.
        columns: (in, R), the transpose of ``a``; a copy if single columns of it will be needed.
        narrow: the same as a product of bfloat16 matrices, if that was asked for and is faster.
    """

    b: torch.Tensor
    a: torch.Tensor
    raw_b: torch.Tensor
    coefficients: torch.Tensor
    reach: torch.Tensor
    columns: torch.Tensor
    narrow: Narrow | None = None

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
        parts = self.narrow and self.narrow.rows(start, stop)
        return self._replace(
            b=self.b[rows], raw_b=self.raw_b[rows], reach=self.reach[rows], narrow=parts
        )


def fold(
    terms: Sequence[Term], dtype: torch.dtype = torch.float32, *, for_bfloat16: bool = False
) -> Folded:
    """Return the one product that equals the sum of ``terms``.

    Semantics: ``b = [c₁·b₁ … cₙ·bₙ]`` (out, Σr), ``a = [a₁; …; aₙ]`` (Σr, in), in ``dtype``.

    Args:
        terms: at least one, all of one shape and on one device.
        dtype: float32 or float64.
        for_bfloat16: it will be added to weights of bfloat16; prepare the fastest way to do so.

    Raises:
        ValueError: no terms, or their shapes differ.
    """
    shapes = {term.shape for term in terms}
    if len(shapes) != 1:
        message = f"terms of one merge need one shape, got {sorted(shapes) or 'no terms'}"
        raise ValueError(message)
    # What is there already is not copied: factors of a head or an embedding are large themselves.
    raw_b = joined([term.b for term in terms], 1)
    raw_a = joined([term.a for term in terms], 0)
    a = raw_a.to(dtype)
    each = [torch.full(term.b.shape[1:], term.coefficient, dtype=torch.float64) for term in terms]
    coefficients = torch.cat(each).to(raw_b.device)
    b = raw_b.to(dtype, copy=True).mul_(coefficients.to(dtype))
    reach = _squares(b, 1).sqrt_() * _squares(a, 0).max().sqrt_()
    parts = None
    if for_bfloat16 and dtype == torch.float32:
        scale = _commonest(terms)
        shares = (coefficients / scale).to(dtype)
        scaled = raw_b if bool((shares == 1).all()) else raw_b.to(dtype, copy=True).mul_(shares)
        parts = narrow(scaled, raw_a, scale)
    columns = a.T.contiguous() if parts and parts.error else a.T
    return Folded(b, a, raw_b, coefficients, reach, columns, parts)


def _squares(values: torch.Tensor, dim: int) -> torch.Tensor:
    """Return sums of squares along an axis, with the squares of some of them in memory only."""
    parts = torch.split(values, _AT_ONCE, 1 - dim)
    # Not norm(): along the first axis it is thirty times slower.
    return torch.cat([part.square().sum(dim) for part in parts])


def _commonest(terms: Sequence[Term]) -> float:
    """Return the coefficient that most ranks have, not 0: as a scale it leaves their b alone."""
    ranks: Counter[float] = Counter()
    for term in terms:
        ranks[term.coefficient or 1.0] += term.b.shape[1]
    return ranks.most_common(1)[0][0]
