"""Recomputes in float64 the few sums that float32 does not round as it should."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from typing import TypeAlias

    from numpy.typing import NDArray

    from rankloom_kernels.terms import Folded
    from rankloom_kernels.workspace import Workspace

    Chosen: TypeAlias = NDArray[np.bool_]
    Positions: TypeAlias = NDArray[np.intp]
    Values: TypeAlias = NDArray[Any]

_GROUP = 16
"""Elements that share one minimum. Of 2 million, some 800 of them wanted, NumPy finds these in
0.14 ms by groups of 16, in 0.20 ms by groups of 64, and in 0.26 ms by a mask of each; torch takes
0.26 ms by groups."""

_BATCH = 1 << 20
"""Factor elements gathered at a time."""

_NEAR_TIE = 16
"""Roundings of a float32 sum: sums that are closer to a tie than this are summed again."""


_SAMPLE = 4
"""Rows that tell how large the elements of a tile are."""


def mean_size(weight: torch.Tensor) -> torch.Tensor:
    """Return the mean magnitude of some rows of a matrix, a float32 scalar."""
    return weight[:: max(1, len(weight) // _SAMPLE)].float().abs().mean()


def refine_(
    total: torch.Tensor,
    weight: torch.Tensor,
    delta: Folded,
    precision: float,
    scratch: Workspace,
) -> None:
    """Make every element of a float32 sum accurate to one step of the 16-bit dtype it becomes.

    A float32 product of rank R errs by about ``√R · 2⁻²⁴ · ‖bᵢ‖‖aⱼ‖``. Where weight and delta
    cancel to less than ``1 / precision`` times that, the error is more than a step of the rounded
    result; those elements, some ten in a million, are summed again in float64.

    Args:
        total: (rows, in) float32, ``weight + delta``; corrected in place.
        weight: (rows, in), before anything was added.
        delta: the rows of the delta.
        precision: ``eps`` of the dtype that ``total`` will be rounded to.
        scratch: keeps magnitudes between calls.
    """
    error = 2**-24 * (2 + math.sqrt(delta.a.shape[0]))
    limit = float(delta.reach.max()) * (error / precision * 2)
    size = torch.abs(total, out=scratch.tile(len(total), total.shape[1], total.dtype, total.device))
    _sum_again_(total, weight, delta, _below(size, limit))


def refine_narrow_(out: torch.Tensor, weight: torch.Tensor, delta: Folded, error: float) -> None:
    """Do what :func:`refine_` does for a sum that is bfloat16 already, on the CPU.

    Args:
        out: (rows, in) bfloat16, ``weight + delta``; corrected in place.
        weight: (rows, in), before anything was added.
        delta: the rows of the delta.
        error: of the product, as a share of ``‖bᵢ‖‖aⱼ‖``.
    """
    error += 2**-24 * (2 + math.sqrt(delta.a.shape[0]))
    limit = delta.reach.max() * (error / torch.finfo(out.dtype).eps * 2)
    limit = limit.clamp_(min=torch.finfo(out.dtype).tiny)  # smaller ones were taken for 0
    below = int(limit.to(out.dtype).view(torch.int16)) + 1
    _sum_again_(out, weight, delta, _near_zero(out, below))


def settle_ties_(
    total: torch.Tensor,
    weight: torch.Tensor,
    delta: Folded,
    precision: float,
    scratch: Workspace,
) -> None:
    """Sum again in float64 what lies so close to a tie that float32 may round it the wrong way.

    For bfloat16 that is 5 elements in 10 000, of which one in ten would be rounded the wrong way
    where the delta is as large as the weight.

    Args:
        total: (rows, in) float32, ``weight + delta``; corrected in place.
        weight: (rows, in), before anything was added.
        delta: the rows of the delta.
        precision: as for :func:`refine_`.
        scratch: keeps distances between calls.
    """
    tie = round(precision * 2**22)  # the lower bits of a float32 halfway between two neighbours
    away = scratch.tile(len(total), total.shape[1], torch.int32, total.device)
    torch.add(total.view(torch.int32), _NEAR_TIE - tie, out=away)
    away.bitwise_and_(2 * tie - 1)
    _sum_again_(total, weight, delta, _below(away, 2 * _NEAR_TIE))


def _below(size: torch.Tensor, limit: float) -> torch.Tensor:
    """Return where a contiguous tensor is below a limit, as flat positions."""
    if size.device.type != "cpu" or not size.numel():
        return (size.view(-1) < limit).nonzero()[:, 0]
    groups = _grouped(size.numpy())
    found = np.flatnonzero(groups.min(0) < limit)
    return torch.from_numpy(_members(groups.take(found, 1) < limit, found, groups.shape[1]))


def _near_zero(values: torch.Tensor, limit: int) -> torch.Tensor:
    """Return where a bfloat16 magnitude is below a limit that is given as bits, as flat positions.

    Of signed numbers the least are the negative ones next to 0, and of unsigned ones the positive
    ones: two passes that only read, where a pass for the magnitudes would write too.
    """
    if not values.numel():
        return torch.empty(0, dtype=torch.int64)
    groups = _grouped(values.view(torch.int16).numpy())
    near = groups.min(0) < limit - 0x8000
    near |= groups.view(np.uint16).min(0) < limit
    found = np.flatnonzero(near)
    chosen = (groups.take(found, 1) & 0x7FFF) < limit
    return torch.from_numpy(_members(chosen, found, groups.shape[1]))


def _grouped(values: Values) -> Values:
    """Return a matrix whose columns are groups, so that minima are taken over whole vectors."""
    return values.reshape(math.gcd(values.size, _GROUP), -1)


def _members(chosen: Chosen, found: Positions, width: int) -> Positions:
    """Return the flat positions of what is chosen from the columns ``found`` of a matrix."""
    row, which = np.divmod(np.flatnonzero(chosen), max(1, len(found)))
    return row * width + found[which]


def _sum_again_(
    total: torch.Tensor, weight: torch.Tensor, delta: Folded, positions: torch.Tensor
) -> None:
    """Set the elements at flat positions to their float64 sums."""
    columns, rank = total.shape[1], max(1, delta.a.shape[0])
    for some in torch.split(positions, max(1, _BATCH // rank)):
        i, j = some // columns, some % columns
        b = delta.raw_b.index_select(0, i).double() * delta.coefficients
        product = (b * delta.columns.index_select(0, j).double()).sum(1)
        total.put_(some, (weight.take(some).double() + product).to(total.dtype))
