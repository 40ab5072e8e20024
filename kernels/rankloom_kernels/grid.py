"""Products of factors whose bits no library, device or number of threads can change.

A matrix product is a sum, and libraries add in an order that depends on sizes and threads; in
float32 that shows in the last bit. If all numbers of a row of ``b`` are small multiples of one
power of two, and all of a column of ``a`` likewise, then every partial sum is a whole number of
units that float64 holds exactly. Nothing is rounded then, so no order can be told from another, and
the product is rounded once, when it becomes float32.
"""

from __future__ import annotations

import torch

MANTISSA = 53
"""Bits of a float64: whole numbers up to 2⁵³ are exact."""


def bits_for(rank: int) -> int:
    """Return how many bits numbers may have so that sums of ``rank`` products are exact.

    24 for a rank of 9 to 32, as many as float32 has; one less with four times the rank.
    """
    return (MANTISSA - (max(1, rank) - 1).bit_length()) // 2


def on_grid(b: torch.Tensor, a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return factors whose product float64 computes without rounding.

    Each number is rounded to :func:`bits_for` bits below the largest of its row of ``b`` or its
    column of ``a``. Columns of ``b`` and rows of ``a`` are brought to about the same length first,
    by powers of two, so that only what is small in the product loses bits.

    Args:
        b: (out, r), finite.
        a: (r, in), finite.

    Returns:
        The same as float64, nearly; ``b @ a`` errs by at most some ``r · 2⁻²⁴ · max|bᵢ| · max|aⱼ|``
        up to a rank of 32, as a float32 product may.
    """
    b, a = _balanced(b.double(), a.double())
    bits = bits_for(b.shape[1])
    return _rounded(b, 1, bits), _rounded(a, 0, bits)


def _balanced(b: torch.Tensor, a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Bring column k of b and row k of a to about one length; both to 0 if one is."""
    long_b = torch.linalg.vector_norm(b, dim=0)
    long_a = torch.linalg.vector_norm(a, dim=1)
    counts = (long_b > 0) & (long_a > 0)
    half = ((long_a.log2() - long_b.log2()) / 2).round()
    up = torch.where(counts, half, 0.0).exp2()
    return b * (up * counts), a * (counts / up)[:, None]


def _rounded(values: torch.Tensor, dim: int, bits: int) -> torch.Tensor:
    """Round to multiples of 2⁻ᵇⁱᵗˢ of the power of two above the largest along ``dim``."""
    if values.numel() == 0:
        return values
    exponent = torch.frexp(values.abs().amax(dim, keepdim=True)).exponent
    unit = (exponent - bits).double().exp2()
    return (values / unit).round_().mul_(unit)
