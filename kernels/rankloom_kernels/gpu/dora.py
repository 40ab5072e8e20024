"""Gives W + ΔW a learned length, row by row, in one launch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from rankloom_kernels.gpu.launch import uses
from rankloom_kernels.gpu.product import Cut, delta_tile, specialised
from rankloom_kernels.gpu.tables import are_aligned, dtypes_of, ready, table

if TYPE_CHECKING:
    from rankloom_kernels.gpu.tables import Dtypes, Job


def cut_for(dtypes: Dtypes, rank: int, *, aligned: bool) -> Cut:
    """Return the cut; see :func:`rankloom_kernels.gpu.low_rank.cut_for`.

    A program has whole rows, and few, so that the second look at them finds them in the L2 cache.
    """
    if dtypes.factors == torch.float32:
        return Cut(16, 128 if aligned else 64, 16, 2 if aligned else 1)
    return Cut(16, 128, 16 if rank <= 16 or not aligned else 32, 2 if aligned else 1)


@triton.jit
def dora_kernel(
    weight: tl.tensor,
    out: tl.tensor,
    magnitude: tl.tensor,
    terms: tl.tensor,
    scales: tl.tensor,
    past: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    weight_stride: tl.tensor,
    out_stride: tl.tensor,
    WEIGHT: tl.constexpr,
    OUT: tl.constexpr,
    FACTOR: tl.constexpr,
    PRECISION: tl.constexpr,
    ALIGNED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    STEP: tl.constexpr,
) -> None:
    """One program for ROWS rows: a first pass sums squares, a second computes again and writes.

    Semantics: ``out ← round(magnitude / ‖V‖ · V)`` with ``V = weight + Σ cᵢ · bᵢ @ aᵢ``, lengths of
    rows. A sum of squares of COLUMNS numbers is float32, that of those sums float64.
    """
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    wide = tl.zeros((), tl.int64) + width
    last_scale = tl.load(scales + past)
    squares = tl.zeros((ROWS,), tl.float64)
    for left in range(0, width, COLUMNS):
        column = left + tl.arange(0, COLUMNS)[None, :]
        inside = (row < height) & (column < width)
        old = tl.load(weight + row * weight_stride + column, mask=inside, other=0.0)
        delta = delta_tile(
            terms,
            scales,
            0,
            past,
            row,
            column,
            height,
            wide,
            FACTOR,
            PRECISION,
            ALIGNED,
            ROWS,
            COLUMNS,
            STEP,
        )
        total = old.to(tl.float32) + delta * last_scale
        squares += tl.sum(total * total, axis=1).to(tl.float64)
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    wanted = tl.load(magnitude + rows, mask=rows < height, other=0.0).to(tl.float64)
    length = tl.sqrt(tl.where(rows < height, squares, 1.0))
    factor = (wanted / length).to(tl.float32)[:, None]
    for left in range(0, width, COLUMNS):
        column = left + tl.arange(0, COLUMNS)[None, :]
        inside = (row < height) & (column < width)
        old = tl.load(weight + row * weight_stride + column, mask=inside, other=0.0)
        delta = delta_tile(
            terms,
            scales,
            0,
            past,
            row,
            column,
            height,
            wide,
            FACTOR,
            PRECISION,
            ALIGNED,
            ROWS,
            COLUMNS,
            STEP,
        )
        total = (old.to(tl.float32) + delta * last_scale) * factor
        tl.store(out + row * out_stride + column, total.to(OUT), mask=inside)


def give_length(item: Job, magnitude: torch.Tensor) -> None:
    """Write ``magnitude / ‖V‖ · V`` with ``V = weight + Σ terms``.

    Args:
        item: float32, float16 or bfloat16, by rows.
        magnitude: (out,) float64 or less, on the same device.
    """
    dtypes = dtypes_of([item])
    item = ready(item, dtypes.factors)
    aligned = are_aligned([item])
    rank = max((term.b.shape[1] for term in item.terms), default=0)
    cut = cut_for(dtypes, rank, aligned=aligned)
    work = table([item], (cut.rows, cut.columns))
    if work.tiles == 0:
        return
    constants, options = specialised(dtypes, cut, aligned=aligned)
    height, width = item.weight.shape
    with uses(item.out.device):
        dora_kernel[(triton.cdiv(height, cut.rows),)](
            item.weight,
            item.out,
            magnitude.contiguous(),
            work.terms,
            work.scales,
            len(item.terms),
            height,
            width,
            item.weight.stride(0),
            item.out.stride(0),
            **constants,
            **options,
        )
