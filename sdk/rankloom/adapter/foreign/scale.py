"""One scale for all modules of a file, such that B takes up the rest without losing a bit."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

BITS = {"F64": 53, "F32": 24, "F16": 11, "BF16": 8}
"""Bits of a value's significand, by safetensors code."""


def common(scales: Iterable[Fraction]) -> Fraction:
    """Return a positive scale s such that every given one is s·m/2ᵏ with whole m, |m| ≤ 2ᵏ.

    Numbers with a short m multiply a float exactly. If all are one scale, that is the result.
    """
    sizes = {abs(scale) for scale in scales if scale}
    if not sizes:
        return Fraction(1)
    shared = math.lcm(*(size.denominator for size in sizes))
    unit = Fraction(math.gcd(*(int(size * shared) for size in sizes)), shared)
    largest = int(max(sizes) / unit)
    return unit * (1 << (largest - 1).bit_length())


def bits(times: Fraction) -> int:
    """Return how many bits a float's significand can grow by when it is multiplied by a number."""
    odd = times.numerator
    while odd and odd % 2 == 0:
        odd //= 2
    return 0 if abs(odd) <= 1 else abs(odd).bit_length()
