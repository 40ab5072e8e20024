"""Sums with the same bits on every device, for any tiles and any number of threads.

Two float32 numbers have 48 bits between them, so float64 holds their product exactly, and whether a
processor fuses the product into the addition cannot show. What is left to fix is the order: here it
is weight, then terms as they are given, then ranks from 0 up. :mod:`rankloom_kernels.gpu.strict`
does the same in Triton.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from rankloom_kernels.terms import Folded, Term

if TYPE_CHECKING:
    from collections.abc import Sequence

_BLOCK = 1 << 15
"""Elements of a tile, so that its sums stay in the second cache from one rank to the next."""

WIDE = {torch.float64, torch.float32}
"""What a float64 sum becomes in one rounding; others take :func:`rounded_to_odd` between."""


def exact_parts(terms: Sequence[Term] | Folded) -> list[Term]:
    """Return terms of float32 factors and coefficient 1 with the same sum.

    ``coefficient · b`` is computed in float64 and split into two float32 numbers, of which the
    second is 0 if the coefficient is a power of two; the 48 bits of both are what a result depends
    on. Terms of coefficient 0 are left out.

    Raises:
        TypeError: a factor is float64, or the terms are folded: products would be rounded.
        ValueError: the terms' shapes differ.
    """
    if isinstance(terms, Folded):
        message = "strict sums need the terms themselves, and these are folded"
        raise TypeError(message)
    if len({term.shape for term in terms}) > 1:
        message = f"terms of one merge need one shape, got {[term.shape for term in terms]}"
        raise ValueError(message)
    return [part for term in terms if term.coefficient for part in _split(term)]


def _split(term: Term) -> list[Term]:
    b, a, coefficient = term
    if torch.float64 in {b.dtype, a.dtype}:
        message = "strict sums need factors of 32 or 16 bits, and one is torch.float64"
        raise TypeError(message)
    exact = b.double() * coefficient
    high = exact.float()
    low = (exact - high).float()
    parts = [high, low] if bool(low.any()) else [high]
    return [Term(part, a.float()) for part in parts]


@torch.no_grad()
def merge_in_order_(weight: torch.Tensor, parts: Sequence[Term], out: torch.Tensor) -> torch.Tensor:
    """Write ``round(weight + Σ bᵢ @ aᵢ)``, summed in float64 in one order, rounded once.

    Args:
        weight: (out, in); float64, float32, float16 or bfloat16.
        parts: of :func:`exact_parts`.
        out: where to write; of the shape of ``weight`` and any of these dtypes.
    """
    height = max(1, _BLOCK // max(1, weight.shape[1]))
    wide = [(b.double(), a.double()) for b, a, _ in parts]
    for start in range(0, weight.shape[0], height):
        rows = slice(start, start + height)
        total = weight[rows].double()
        if weight.dtype == torch.float64:
            total = total.clone()
        for b, a in wide:
            for k in range(a.shape[0]):
                total.addcmul_(b[rows, k : k + 1], a[k : k + 1])
        out[rows].copy_(total if out.dtype in WIDE else rounded_to_odd(total))
    return out


def rounded_to_odd(values: torch.Tensor) -> torch.Tensor:
    """Return float64 values as float32 such that rounding these to 16 bits is rounding those.

    A value that float32 does not hold becomes that one of its two neighbours whose last bit is 1,
    so it is never taken for the middle of two 16-bit numbers (Boldo and Melquiond, *Emulation of
    FMA and correctly rounded sums*, IEEE Trans. Computers 57(4), 2008).
    """
    near = values.float()
    back = near.double()
    bits = near.view(torch.int32)
    odd = (bits - (back.abs() > values.abs()).int()) | 1
    keeps = (back == values) | values.isnan()
    return torch.where(keeps, bits, odd).view(torch.float32)
