"""Exact quantiles of magnitudes by counting, in two passes over values that are never kept."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Final, TypeAlias

    from rankloom.compose.tiles.deltas import Deltas

    Values: TypeAlias = Callable[[], Iterable[torch.Tensor]]

TIE_RULE: Final = "keep-all-at-threshold"
"""Elements as large as the threshold are all kept, so that which of several equal ones stays is no
accident; more than asked for may stay. For locks."""

_LOW = 15
"""Bits that the second pass counts; a float32 without its sign has 31, so the first counts 16."""


def kth_largest(values: Values, ranks: Sequence[int]) -> tuple[float, ...]:
    """Return the k-th largest of many values for each k, exactly.

    Bits of float32 numbers that are not negative are ordered as the numbers are. The first pass
    counts the upper 16 bits, which tells in which bin each k-th value is; the second counts the
    lower 15 of what is in that bin.

    Args:
        values: yields all values in some tensors each time it is called; float32, none negative
            or NaN.
        ranks: each at least 1 and at most the number of values.

    Returns:
        One value for each rank.
    """
    upper = _count(values, lambda bits: bits >> _LOW, 1 << 16)
    places = [_place(upper, rank) for rank in ranks]
    lower = {one: _count(values, _lower(one), 2 << _LOW)[: 1 << _LOW] for one, _ in set(places)}
    found = [(one << _LOW) + _place(lower[one], rank)[0] for one, rank in places]
    return tuple(torch.tensor(found, dtype=torch.int32).view(torch.float32).tolist())


def _lower(upper: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return what gives the lower bits, and 2¹⁵ more where the upper bits are others.

    Counting all of those in one bin would take three times as long: each count waits for the last.
    """

    def bins(bits: torch.Tensor) -> torch.Tensor:
        others = (bits >> _LOW).ne_(upper).mul_(1 << _LOW)
        return others.add_(bits & ((1 << _LOW) - 1))

    return bins


def _count(values: Values, bins: Callable[[torch.Tensor], torch.Tensor], size: int) -> torch.Tensor:
    """Return how many values fall into each bin, (size,) int64."""
    total: torch.Tensor | None = None
    for some in values():
        counts = torch.bincount(bins(some.view(torch.int32)).flatten(), minlength=size)
        total = counts if total is None else total.add_(counts)
    assert total is not None  # noqa: S101 - a rank is at most the number of values
    return total


def _place(counts: torch.Tensor, rank: int) -> tuple[int, int]:
    """Return the bin of the ``rank``-th largest, and its rank among what is in that bin."""
    at_least = counts.flip(0).cumsum(0).flip(0)  # how many are in this bin or a higher one
    bin_ = int((at_least >= rank).sum()) - 1
    return bin_, rank - int(at_least[bin_] - counts[bin_])


def magnitudes(deltas: Deltas, number: int) -> Values:
    """Return what yields all |Δ[i, j]| of one delta, a block at a time."""

    def every_block() -> Iterable[torch.Tensor]:
        room = deltas.buffer(1)[0]
        for block in deltas.blocks():
            yield deltas.block_(number, block, room).abs_()

    return every_block


def count_of(density: float, elements: int) -> int:
    """Return how many of so many elements a density keeps: at least one.

    Rounded down, as by PEFT and mergekit.
    """
    return max(1, int(density * elements))


def thresholds(deltas: Deltas, densities: Sequence[float]) -> tuple[float, ...]:
    """Return for each delta the magnitude from which elements belong to its largest ones.

    Args:
        deltas: N deltas.
        densities: share of elements to keep, for each delta, above 0 and at most 1.

    Returns:
        For each delta t such that the elements with |Δ[i, j]| ≥ t are the ``density · out · in``
        largest, and those that equal the smallest of them; 0 for a density of 1.
    """
    elements = deltas.shape[0] * deltas.shape[1]
    return tuple(
        _from_largest(deltas, number, count_of(density, elements))
        for number, density in enumerate(densities)
    )


def _from_largest(deltas: Deltas, number: int, count: int) -> float:
    if count >= deltas.shape[0] * deltas.shape[1]:
        return 0.0
    return kth_largest(magnitudes(deltas, number), [count])[0]


def band(deltas: Deltas, number: int, density: float, gamma: float) -> tuple[float, float]:
    """Return between which magnitudes elements are neither too large nor too small.

    Args:
        deltas: N deltas.
        number: of the one that is meant.
        density: share of elements to keep.
        gamma: share that is too large; less, if density and gamma are more than 1 together.

    Returns:
        (low, high) such that the elements to keep have ``low ≤ |Δ[i, j]| < high``; infinity where
        none is too large.
    """
    elements = deltas.shape[0] * deltas.shape[1]
    kept = count_of(density, elements)
    above = min(int(gamma * elements), elements - kept)
    if above == 0:
        return _from_largest(deltas, number, kept), math.inf
    high, low = kth_largest(magnitudes(deltas, number), [above, above + kept])
    return low, high
