"""Deltas as products of bfloat16 matrices, for processors that multiply those much faster.

A processor with such instructions multiplies bfloat16 numbers exactly and sums in float32, four
times faster than it multiplies float32 numbers. A float32 number is a bfloat16 number and a rest
of at most 2⁻⁹ of it, itself nearly a bfloat16 number, so that

    b·a = b₁·a₁ + b₁·a₂ + b₂·a₁ + what is below 2⁻¹⁶ of it,

three products that are one of three times the rank. Factors that are bfloat16 numbers already have
no rest.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple, Self

import torch

from rankloom_kernels.refine import mean_size, refine_narrow_

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankloom_kernels.terms import Folded, Term
    from rankloom_kernels.workspace import Workspace

_BF16 = torch.bfloat16

_ERROR = 3 * 2.0**-18
"""What three products leave out, as a share of ‖bᵢ‖·‖aⱼ‖ at most: b₂·a₂ and the rests of rests."""

_LARGEST = 2.0**40
"""Factors beyond this are left to float32: the products take numbers below 2⁻¹²⁶ for 0, which is
nothing beside a weight only if the other factor is no giant."""

_SHARE = {True: 4.0, False: 0.25}
"""Largest element that a delta can have, in mean weights, by whether its factors are exact. Beyond
it more than 0.7 · 10⁻⁴ of the sums would be rounded to the wrong one of two neighbours."""


class Narrow(NamedTuple):
    """A delta as ``scale · b @ a`` of bfloat16 matrices.

    Attributes:
        b: (out, R) bfloat16.
        a: (R, in) bfloat16.
        scale: meets the float32 sum, as no bfloat16 number would hold it.
        error: what is left out, as a share of ‖bᵢ‖·‖aⱼ‖; 0: nothing.
    """

    b: torch.Tensor
    a: torch.Tensor
    scale: float
    error: float

    def rows(self, start: int, stop: int) -> Self:
        """Return the part that makes the delta's rows ``start`` to ``stop``."""
        return self._replace(b=self.b[start:stop])


@cache
def multiplies_bfloat16() -> bool:
    """Tell whether this processor has instructions for products of bfloat16 matrices."""
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))


def narrow(terms: Sequence[Term]) -> Narrow | None:
    """Return the sum of terms as one product of bfloat16 matrices; ``None``: it is better not."""
    if terms[0].b.device.type != "cpu" or not multiplies_bfloat16():
        return None
    coefficients = {term.coefficient for term in terms}
    scale = terms[0].coefficient if len(coefficients) == 1 else 1.0
    scaled = [term.b if len(coefficients) == 1 else _scaled(term) for term in terms]
    b, a = torch.cat(scaled, dim=1), torch.cat([term.a for term in terms], dim=0)
    if max(_largest(b) * max(1.0, abs(scale)), _largest(a)) > _LARGEST:
        return None
    [b1, *b2], [a1, *a2] = _parts(b), _parts(a)
    return Narrow(
        torch.cat([b1, *[b1] * len(a2), *b2], dim=1),
        torch.cat([a1, *a2, *[a1] * len(b2)], dim=0),
        scale,
        _ERROR if a2 or b2 else 0.0,
    )


def _scaled(term: Term) -> torch.Tensor:
    return term.b.float() * term.coefficient


def _largest(values: torch.Tensor) -> float:
    if not values.numel():
        return 0.0
    low, high = values.aminmax()
    return max(-float(low), float(high))


def _parts(values: torch.Tensor) -> list[torch.Tensor]:
    """Return bfloat16 matrices whose sum is ``values`` but for 2⁻¹⁸ of it; one, if it is exact."""
    first = values.to(_BF16)
    rest = (values - first).to(_BF16)
    return [first, rest] if _largest(rest) else [first]


def suits(weight: torch.Tensor, out: torch.Tensor, delta: Folded) -> bool:
    """Tell whether products of bfloat16 matrices are accurate enough for these rows."""
    if delta.narrow is None or not weight.dtype == out.dtype == _BF16:
        return False
    share = _SHARE[delta.narrow.error == 0]
    return bool(delta.reach.max() <= share * mean_size(weight))


def add_narrow_(
    weight: torch.Tensor, delta: Folded, out: torch.Tensor, workspace: Workspace
) -> None:
    """Set ``out`` to the sum of weight and delta, rounded once; see :func:`suits`.

    Args:
        weight: (rows, in) bfloat16.
        delta: the rows of the delta.
        out: of the same shape and dtype; may be ``weight``.
        workspace: keeps buffers between calls.
    """
    parts, before = delta.narrow, weight
    assert parts is not None  # noqa: S101 - suits() was asked
    if out.data_ptr() != weight.data_ptr():
        out.copy_(weight)
    elif parts.error:
        before = workspace.tile(len(weight), weight.shape[1], _BF16, weight.device).copy_(weight)
    out.addmm_(parts.b, parts.a, alpha=parts.scale)
    if parts.error:
        refine_narrow_(out, before, delta, parts.error, workspace.beside)
