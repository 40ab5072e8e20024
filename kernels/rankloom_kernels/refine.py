"""Recomputes in float64 the few sums that float32 does not round as it should."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from numpy.typing import NDArray

    from rankloom_kernels.terms import Folded
    from rankloom_kernels.workspace import Workspace

    Chosen: TypeAlias = NDArray[np.bool_]
    Values: TypeAlias = NDArray[Any]

_GROUP = 64
"""Rows that share one minimum for each column, at most. NumPy finds the minima of 16 million
float32 sums in 2.4 ms by 16 rows that follow each other, in 3.1 ms by ones that lie far apart; by
64 rows they are so few that memory for them is used again."""

_BATCH = 1 << 20
"""Factor elements gathered at a time."""

_BITS: Final = {2: (torch.int16, np.uint16), 4: (torch.int32, np.uint32)}
"""Whole numbers of the bytes of a value."""

_NEAR_TIE = 16
"""Roundings of a float32 sum: sums that are closer to a tie than this are summed again."""

_SAMPLE = 4
"""Rows that tell how large the elements of a tile are."""


def mean_size(weight: torch.Tensor) -> float:
    """Return the mean magnitude of a usual row of a matrix, among some that are looked at."""
    rows = weight[:: max(1, len(weight) // _SAMPLE)].float()
    return float(rows.abs().mean(1).nanmedian())  # one of giants says nothing of the others


class Doubtful:
    """Elements of a sum that are summed again in float64, those of many tiles at a time.

    Args:
        out: (rows, in), where the sum is written.
        delta: what is added.
    """

    def __init__(self, out: torch.Tensor, delta: Folded) -> None:
        self._out, self._delta = out, delta
        self._found: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._batch, self._count = max(1, _BATCH // max(1, delta.a.shape[0])), 0

    @property
    def are_many(self) -> bool:
        """Whether they should be summed again now."""
        return self._count >= self._batch

    def add(self, start: int, weight: torch.Tensor, positions: torch.Tensor) -> None:
        """Note elements of a tile.

        Args:
            start: first row of the tile.
            weight: the tile before anything was added.
            positions: flat, in the tile.
        """
        if len(positions):
            self._found.append((positions + start * weight.shape[1], weight.take(positions)))
            self._count += len(positions)

    def sum_again(self) -> None:
        """Set what was noted to float64 sums, rounded; its tiles must be written already."""
        if not self._found:
            return
        positions, weights = (torch.cat(some) for some in zip(*self._found, strict=True))
        self._found, self._count = [], 0
        parts = (torch.split(some, self._batch) for some in (positions, weights))
        for some, weight in zip(*parts, strict=True):
            total = weight.double() + self._products(some)
            self._out.put_(some, total.to(self._out.dtype))

    def _products(self, positions: torch.Tensor) -> torch.Tensor:
        delta, columns = self._delta, self._out.shape[1]
        b = delta.raw_b.index_select(0, positions // columns).double() * delta.coefficients
        return (b * delta.columns.index_select(0, positions % columns).double()).sum(1)


def cancelled(
    total: torch.Tensor, delta: Folded, precision: float, error: float = 0.0
) -> torch.Tensor:
    """Return where a sum may err by more than one step of the 16-bit dtype it becomes.

    A float32 product of rank R errs by about ``√R · 2⁻²⁴ · ‖bᵢ‖‖aⱼ‖``. Where weight and delta
    cancel to less than ``1 / precision`` times that, some ten times in a million, the error is
    more than a step of the rounded result.

    Args:
        total: (rows, in) float32 or, on the CPU, already bfloat16: ``weight + delta``.
        delta: the rows of the delta.
        precision: ``eps`` of the dtype that ``total`` is or will be rounded to.
        error: of the product beyond that of float32, as a share of ``‖bᵢ‖‖aⱼ‖``.

    Returns:
        Flat positions.
    """
    error += 2**-24 * (2 + math.sqrt(delta.a.shape[0]))
    limits = delta.reach * (error / precision * 2)  # a row of giants makes no other doubtful
    if total.dtype == torch.bfloat16:  # products of such matrices take what is tiny for 0
        limits = limits.clip(min=2 * torch.finfo(total.dtype).tiny)
    return _near_zero(total, limits.float())


def near_ties(total: torch.Tensor, precision: float, scratch: Workspace) -> torch.Tensor:
    """Return where a sum lies so close to a tie that float32 may round it the wrong way.

    For bfloat16 that is 5 elements in 10 000, of which one in ten would be rounded the wrong way
    where the delta is as large as the weight.

    Args:
        total: (rows, in) float32, ``weight + delta``.
        precision: ``eps`` of the dtype that it will be rounded to.
        scratch: keeps distances between calls.

    Returns:
        Flat positions.
    """
    tie = round(precision * 2**22)  # the lower bits of a float32 halfway between two neighbours
    away = scratch.tile(len(total), total.shape[1], torch.int32, total.device)
    torch.add(total.view(torch.int32), _NEAR_TIE - tie, out=away)
    away.bitwise_and_(2 * tie - 1)
    return _below(away, 2 * _NEAR_TIE)


def _near_zero(values: torch.Tensor, limits: torch.Tensor) -> torch.Tensor:
    """Return where magnitudes are below the limit of their row, as flat positions.

    Of signed numbers the least are the negative ones next to 0, and of unsigned ones the positive
    ones: two passes that only read, where a pass for the magnitudes would write too.
    """
    if values.device.type != "cpu":
        return (values.abs() < limits[:, None]).view(-1).nonzero()[:, 0]
    signed, unsigned = _BITS[values.dtype.itemsize]
    sign = torch.iinfo(signed).min
    groups = _grouped(values.view(signed).numpy())
    bits = limits.view(torch.int32).numpy() >> (32 - 8 * values.dtype.itemsize)
    least = bits.astype(groups.dtype).reshape(groups.shape[:2])
    most = least.max(1, keepdims=True)
    near = groups.min(1) < sign + most
    near |= groups.view(unsigned).min(1) < most.view(unsigned)
    return _members(near, groups, lambda some, which: (some & ~sign) < least[which])


def _below(values: torch.Tensor, limit: int) -> torch.Tensor:
    """Return where whole numbers are below a limit, as flat positions."""
    if values.device.type != "cpu":
        return (values < limit).view(-1).nonzero()[:, 0]
    groups = _grouped(values.numpy())
    return _members(groups.min(1) < limit, groups, lambda some, _: some < limit)


def _grouped(values: Values) -> Values:
    """Return rows in groups, so that minima along the second axis are taken over whole rows."""
    rows, columns = values.shape
    group = math.gcd(rows, _GROUP)
    return values.reshape(rows // group, group, columns)


def _members(
    near: Chosen, groups: Values, wanted: Callable[[Values, NDArray[np.intp]], Chosen]
) -> torch.Tensor:
    """Return the flat positions of what is wanted from the columns of groups that hold some of it.

    ``wanted`` is given those columns, (count, rows of a group), and the numbers of their groups.
    """
    _, height, columns = groups.shape
    which, column = np.divmod(np.flatnonzero(near), columns)
    found, row = np.nonzero(wanted(groups[which, :, column], which))
    return torch.from_numpy((which[found] * height + row) * columns + column[found])
