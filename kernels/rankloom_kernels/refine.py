"""Recomputes the few sums in which weight and delta cancel."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from rankloom_kernels.terms import Folded
    from rankloom_kernels.workspace import Workspace

_GROUP = 64
"""Neighbours that share one minimum: finding them costs 0.1 ms per million elements so, 0.5 ms
with a mask of every element."""

_BATCH = 1 << 20
"""Factor elements gathered at a time."""


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
    if total.numel() == 0:
        return
    rows, columns = total.shape
    error = 2**-24 * (2 + math.sqrt(delta.a.shape[0]))
    limit = delta.reach * (error / precision * 2)
    size = torch.abs(total, out=scratch.tile(rows, columns, total.dtype, total.device))
    group = math.gcd(columns, _GROUP)
    smallest = size.view(rows, columns // group, group).amin(2)
    row, start = (smallest < limit[:, None]).nonzero(as_tuple=True)
    if row.numel() == 0:
        return
    inside = size.view(rows, columns // group, group)[row, start] < limit[row, None]
    which, offset = inside.nonzero(as_tuple=True)
    row, column = row[which], start[which] * group + offset
    step = max(1, _BATCH // delta.a.shape[0])
    for i, j in zip(torch.split(row, step), torch.split(column, step), strict=True):
        product = (delta.exact_b[i] * delta.a[:, j].T.double()).sum(1)
        total[i, j] = (weight[i, j].double() + product).to(total.dtype)
