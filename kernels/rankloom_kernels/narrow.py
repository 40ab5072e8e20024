"""Deltas as products of bfloat16 matrices, for processors that multiply those much faster.

A processor with such instructions multiplies bfloat16 numbers exactly and sums in float32, at least
twice as fast as it multiplies float32 numbers. A float32 number is a bfloat16 number and a rest of
at most 2⁻⁸ of it, itself nearly a bfloat16 number, so that

    b·a = b₁·a₁ + b₁·a₂ + b₂·a₁ + some 2⁻¹⁶ of it,

three products that are one of three times the rank. What is bfloat16 already has no rest, and a
column of ``b`` or a row of ``a`` without one adds nothing to the rank.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
import torch

from rankloom_kernels.refine import cancelled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rankloom_kernels.terms import Folded
    from rankloom_kernels.workspace import Workspace

_BF16 = torch.bfloat16

_SMALLEST = 2.0**-126

_LARGEST = 2.0**40
"""Factors beyond this are left to float32: the products take numbers below 2⁻¹²⁶ for 0, which is
nothing beside a weight only if the other factor, with the scale, is no giant."""

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

    @property
    def most(self) -> float:
        """Largest element of the delta, in mean weights, up to which this is accurate enough."""
        return _SHARE[self.error == 0]

    def rows(self, start: int, stop: int) -> Self:
        """Return the part that makes the delta's rows ``start`` to ``stop``."""
        return self._replace(b=self.b[start:stop])


@cache
def most_products() -> int:
    """Return how many products of bfloat16 matrices take less time here than a float32 product.

    0 without instructions for them. With them 2: on one thread of Zen 4, torch multiplies bfloat16
    matrices at 213 and float32 ones at 100 GFLOP/s. 3 if the processor is of a later generation,
    which AVX-VNNI tells, or has units for matrices.
    """
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    if known.get("amx_bf16") or (known.get("avx512_bf16") and known.get("avx_vnni")):
        return 3
    return 2 if known.get("avx512_bf16") else 0


def narrow(b: torch.Tensor, a: torch.Tensor, scale: float) -> Narrow | None:
    """Return ``scale · b @ a`` as one product of bfloat16 matrices; ``None``: it is better not.

    Factors that are bfloat16 already are taken as they are, not copied.
    """
    if b.device.type != "cpu" or not most_products() or not (b.numel() and a.numel()):
        return None
    # Not "greater": what a ratio of coefficients overflowed in may be NaN.
    if not max(_largest(b), _largest(a)) * max(1.0, abs(scale)) <= _LARGEST:
        return None
    left, right = _part(b, 1), _part(a, 0)
    if len(left.which) + len(right.which) > (most_products() - 1) * b.shape[1]:
        return None
    b_rest, b_share, b_lost = _rest(b, left, 1)
    a_rest, a_share, a_lost = _rest(a, right, 0)
    parts_of_b, parts_of_a = [left.first], [right.first]
    if len(left.which) + len(right.which):
        parts_of_b += [left.first[:, right.which], b_rest]
        parts_of_a += [a_rest, right.first[left.which]]
    error = b_share * a_share + b_lost + a_lost
    return Narrow(joined(parts_of_b, 1), joined(parts_of_a, 0), scale, error)


def joined(parts: list[torch.Tensor], dim: int) -> torch.Tensor:
    """Return matrices beside or below each other; one alone is not copied if it is contiguous."""
    return parts[0].contiguous() if len(parts) == 1 else torch.cat(parts, dim=dim)


def _largest(values: torch.Tensor) -> float:
    low, high = values.aminmax()
    return max(-float(low), float(high))


class _Parts(NamedTuple):
    """A matrix as bfloat16 numbers and what they leave.

    Attributes:
        first: the nearest bfloat16 numbers.
        which: the columns of ``b``, or rows of ``a``, of which something is left.
        left: what is left of these.
    """

    first: torch.Tensor
    which: torch.Tensor
    left: torch.Tensor


def _part(values: torch.Tensor, dim: int) -> _Parts:
    if values.dtype == _BF16:
        return _Parts(values, torch.empty(0, dtype=torch.int64), values.narrow(dim, 0, 0))
    first = values.to(_BF16)
    left = values - first
    low, high = left.amin(1 - dim), left.amax(1 - dim)
    which = torch.maximum(high, -low).nonzero()[:, 0]
    return _Parts(first, which, left.index_select(dim, which))


def _rest(values: torch.Tensor, parts: _Parts, dim: int) -> tuple[torch.Tensor, float, float]:
    """Return the nearest bfloat16 numbers of what is left, and two shares.

    What is left of a row or column is at most so long, as a share of its length, before and after
    these numbers are taken away.
    """
    rest = parts.left.to(_BF16)
    if not len(parts.which):
        return rest, 0.0, 0.0
    squares = _squares(values, dim).clip(min=_SMALLEST)
    share, lost = (_squares(some, dim) / squares for some in (parts.left, parts.left - rest))
    return rest, math.sqrt(share.max()), math.sqrt(lost.max())


def _squares(values: torch.Tensor, dim: int) -> NDArray[np.float32]:
    """Return sums of squares along an axis, with no square in memory."""
    # Squares of float16 numbers are mostly 0 in float16, and so is the smallest divisor.
    exact = values.float().numpy()
    found: NDArray[np.float32] = np.einsum(f"ij,ij->{'ji'[dim]}", exact, exact)
    return found


def add_narrow_(
    weight: torch.Tensor, delta: Folded, parts: Narrow, out: torch.Tensor, workspace: Workspace
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Set ``out`` to the sum of weight and delta, rounded once.

    Args:
        weight: (rows, in) bfloat16.
        delta: the rows of the delta.
        parts: the same, accurate enough.
        out: of the same shape and dtype; may be ``weight``.
        workspace: keeps buffers between calls.

    Returns:
        If the product is not exact: what ``weight`` was, until the workspace is used again, and
        flat positions of what must be summed again.
    """
    before = weight
    if out.data_ptr() != weight.data_ptr():
        out.copy_(weight)
    elif parts.error:
        before = workspace.tile(len(weight), weight.shape[1], _BF16, weight.device).copy_(weight)
    out.addmm_(parts.b, parts.a, alpha=parts.scale)
    if not parts.error:
        return None
    return before, cancelled(out, delta, torch.finfo(_BF16).eps, parts.error)
