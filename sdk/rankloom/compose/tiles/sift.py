"""Which elements of each delta stay: one class for each way to decide it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Protocol

import torch

from rankloom_kernels.masks import cutoff, cutoffs, drop_

if TYPE_CHECKING:
    from collections.abc import Sequence


class Sift(Protocol):
    """Decides it for a block."""

    def __call__(self, stack: torch.Tensor, first: int) -> None:
        """Set to 0 what does not stay, and scale what does, in place.

        Args:
            stack: (N, rows, in) float32, rows ``first`` and following of every delta.
            first: number of the first row in the whole tensor.
        """


@dataclass(frozen=True, slots=True)
class All:
    """Everything stays."""

    def __call__(self, stack: torch.Tensor, first: int) -> None:
        """Leave it as it is."""


def _beyond(values: torch.Tensor, limit: float, out: torch.Tensor) -> torch.Tensor:
    """Write to ``out`` the values of at least ``limit`` in magnitude, 0 for the others."""
    if limit <= 0:
        return out.copy_(values) if out is not values else out
    # The operation keeps what is beyond its bound, so the bound is the number before the limit.
    bound = torch.nextafter(torch.tensor(limit), torch.tensor(0.0)).item()
    torch.ops.aten.hardshrink.out(values, bound, out=out)
    return out


@dataclass(frozen=True, slots=True)
class Magnitude:
    """Elements of delta n stay if ``low[n] ≤ |Δ[i, j]| < high[n]``.

    Attributes:
        low: (N,), 0 for no bound.
        high: (N,), infinity for no bound.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __call__(self, stack: torch.Tensor, first: int) -> None:
        """See :class:`Sift`."""
        for values, low, high in zip(stack, self.low, self.high, strict=True):
            _beyond(values, low, values)
            if high < math.inf:
                values.sub_(_beyond(values, high, torch.empty_like(values)))


@dataclass(frozen=True, slots=True)
class Drop:
    """Elements of delta n stay with probability ``rates[n]`` and are divided by it.

    Attributes:
        rates: (N,), above 0 and at most 1.
        keys: (N,), the deltas' streams of random numbers.
    """

    rates: tuple[float, ...]
    keys: tuple[int, ...]

    def __call__(self, stack: torch.Tensor, first: int) -> None:
        """See :class:`Sift`."""
        start = first * stack.shape[2]
        for values, rate, key in zip(stack, self.rates, self.keys, strict=True):
            drop_(values, key, start, cutoff(rate)).div_(rate)


@dataclass(frozen=True, slots=True, eq=False)
class DropByRank:
    """Elements stay with a probability that depends on their rank in their row.

    What stays is divided by its probability.

    Attributes:
        rates: (N, in) float64, for each delta the probabilities of a row's elements from the
            smallest magnitude to the largest.
        keys: (N,), the deltas' streams of random numbers.
    """

    rates: torch.Tensor
    keys: tuple[int, ...]

    def __call__(self, stack: torch.Tensor, first: int) -> None:
        """See :class:`Sift`."""
        start = first * stack.shape[2]
        limits = cutoffs(self.rates)
        for number, (values, key) in enumerate(zip(stack, self.keys, strict=True)):
            order = by_magnitude(values)
            drop_(values, key, start, _to_places(order, limits[number]))
            values.div_(_to_places(order, self.rates[number].to(values.dtype)))


def window(densities: Sequence[float], epsilon: float, columns: int) -> torch.Tensor:
    """Return probabilities that rise with the rank, from density − ε to density + ε.

    Returns:
        (N, columns) float64; a row of one element has the density itself.
    """
    ramp = torch.linspace(-1, 1, columns, dtype=torch.float64) if columns > 1 else torch.zeros(1)
    return torch.tensor(densities, dtype=torch.float64)[:, None] + epsilon * ramp


def by_magnitude(values: torch.Tensor) -> torch.Tensor:
    """Return the columns of each row from the smallest magnitude to the largest.

    Of equal ones the left comes first: the column is the lower half of what is sorted, so that no
    two are equal and every way to sort gives the same.
    """
    bits = values.abs().view(torch.int32).to(torch.int64)
    columns = torch.arange(values.shape[1], device=values.device)
    ordered = bits.bitwise_left_shift_(32).bitwise_or_(columns)
    if ordered.device.type == "cpu":
        ordered.numpy().sort(axis=1)  # takes a tenth of the time of torch's
    else:
        ordered = ordered.sort(dim=1).values
    return ordered.bitwise_and_((1 << 32) - 1)


def _to_places(order: torch.Tensor, by_rank: torch.Tensor) -> torch.Tensor:
    """Give every element of a block what its rank in its row has."""
    table = by_rank.to(order.device).expand_as(order)
    return torch.empty(order.shape, dtype=table.dtype, device=table.device).scatter_(
        1, order, table
    )


@dataclass(frozen=True, slots=True)
class Varied:
    """An element of all deltas stays if its variance over the deltas is at least ``least``."""

    least: float

    def __call__(self, stack: torch.Tensor, first: int) -> None:
        """See :class:`Sift`."""
        stack.mul_(variance(stack).ge_(self.least))


def variance(stack: torch.Tensor) -> torch.Tensor:
    """Return the variance over the first dimension, (rows, in).

    Semantics: ``Σ_{n < m} (xₙ − xₘ)² / N²``, which unlike the sum of squares about a rounded mean
    is 0 only where all are equal.
    """
    total = torch.zeros_like(stack[0])
    for one, other in combinations(stack, 2):
        total.add_((one - other).square_())
    return total.div_(len(stack) ** 2)
