"""How often two deltas pull an element in opposite directions, estimated from some rows."""

from __future__ import annotations

import hashlib
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankloom.compose.factors.value import Factors

_HIGH = 0x9E3779B97F4A7C15
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


class Meeting(NamedTuple):
    """Sums over the sampled rows, scaled up to all rows; (N, N) each, float64.

    Attributes:
        met: Σ min(|x|, |y|).
        opposed: the same where x and y have opposite signs.
    """

    met: torch.Tensor
    opposed: torch.Tensor


def sample(name: str, rows: int, count: int, seed: int) -> torch.Tensor:
    """Return ``count`` different rows of a target, rising; all, if there are no more.

    The rows with the smallest numbers, row i having splitmix64(key + i) (Steele, Lea & Flood 2014,
    *Fast splittable pseudorandom number generators*) and the key coming from seed and name. So the
    choice depends on neither device, nor threads, nor which targets came before.
    """
    if rows <= count:
        return torch.arange(rows)
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    key = int.from_bytes(digest[:8], "big", signed=True)
    numbers = _splitmix(torch.arange(1, rows + 1) * _signed(_HIGH) + key)
    return torch.sort(torch.argsort(numbers, stable=True)[:count]).values


def _splitmix(numbers: torch.Tensor) -> torch.Tensor:
    for shift, factor in _MIX:
        numbers = (numbers ^ _shifted(numbers, shift)) * _signed(factor)
    return numbers ^ _shifted(numbers, 31)


def _shifted(numbers: torch.Tensor, by: int) -> torch.Tensor:
    """Shift right as if there were no sign."""
    return (numbers >> by) & ((1 << (64 - by)) - 1)


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number


def meeting(parts: Sequence[Factors], weights: Sequence[float], rows: torch.Tensor) -> Meeting:
    """Sum magnitudes and opposed magnitudes of all pairs of weighted deltas over some rows.

    Args:
        parts: factors of one shape.
        weights: one for each.
        rows: which rows, at least one.
    """
    pairs = zip(parts, weights, strict=True)
    deltas = [weight * (part.b[rows].double() @ part.a.double()) for part, weight in pairs]
    negative = [delta < 0 for delta in deltas]
    sizes = [delta.abs_() for delta in deltas]
    met = torch.zeros(len(parts), len(parts), dtype=torch.float64)
    opposed = torch.zeros_like(met)
    for i, j in combinations(range(len(parts)), 2):
        least = torch.minimum(sizes[i], sizes[j])
        met[i, j] = met[j, i] = least.sum()
        opposed[i, j] = opposed[j, i] = least.mul_(negative[i] ^ negative[j]).sum()
    scale = parts[0].shape[0] / len(rows)
    return Meeting(met * scale, opposed * scale)
