"""Deltas as products of bfloat16 matrices, for processors that multiply those much faster.

A processor with such instructions multiplies bfloat16 numbers exactly and sums in float32, four
times faster than it multiplies float32 numbers. A float32 number is a bfloat16 number and a rest
of at most 2⁻⁸ of it, itself nearly a bfloat16 number, so that

    b·a = b₁·a₁ + b₁·a₂ + b₂·a₁ + some 2⁻¹⁶ of it,

three products that are one of three times the rank. Factors that are bfloat16 numbers already have
no rest.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
import torch

from rankloom_kernels.refine import mean_size, refine_narrow_

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rankloom_kernels.terms import Folded
    from rankloom_kernels.workspace import Workspace

_BF16 = torch.bfloat16

_SMALLEST = 2.0**-126

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


def narrow(b: torch.Tensor, a: torch.Tensor, scale: float) -> Narrow | None:
    """Return ``scale · b @ a`` as one product of bfloat16 matrices; ``None``: it is better not."""
    if b.device.type != "cpu" or not multiplies_bfloat16():
        return None
    if max(_largest(b) * max(1.0, abs(scale)), _largest(a)) > _LARGEST:
        return None
    left, right = _split(b, 1), _split(a, 0)
    return Narrow(
        torch.cat([left.first, *[left.first] * len(right.rest), *left.rest], dim=1),
        torch.cat([right.first, *right.rest, *[right.first] * len(left.rest)], dim=0),
        scale,
        left.share * right.share + left.lost + right.lost,
    )


def _largest(values: torch.Tensor) -> float:
    if not values.numel():
        return 0.0
    low, high = values.aminmax()
    return max(-float(low), float(high))


class _Split(NamedTuple):
    """A matrix as bfloat16 numbers.

    Attributes:
        first: the nearest ones.
        rest: the nearest of what is left; none, if nothing is.
        share: length of what is left of a row or column, as a share of its length at most.
        lost: the same of what is left after ``rest``.
    """

    first: torch.Tensor
    rest: tuple[torch.Tensor, ...] = ()
    share: float = 0.0
    lost: float = 0.0


def _split(values: torch.Tensor, dim: int) -> _Split:
    first = values.to(_BF16)
    left = values - first
    if not _largest(left):
        return _Split(first)
    rest = left.to(_BF16)
    squares = _squares(values, dim).clip(min=_SMALLEST)
    share = math.sqrt((_squares(left, dim) / squares).max())
    lost = math.sqrt((_squares(left.sub_(rest), dim) / squares).max())
    return _Split(first, (rest,), share, lost)


def _squares(values: torch.Tensor, dim: int) -> NDArray[np.float32]:
    """Return sums of squares along an axis, with no square in memory."""
    # Squares of float16 numbers are mostly 0 in float16, and so is the smallest divisor.
    exact = values.float().numpy()
    found: NDArray[np.float32] = np.einsum(f"ij,ij->{'ji'[dim]}", exact, exact)
    return found


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
        refine_narrow_(out, before, delta, parts.error)
