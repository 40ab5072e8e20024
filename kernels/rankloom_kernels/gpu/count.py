"""Counts magnitudes of a delta by ranges; the delta is computed for it and not stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from rankloom_kernels.gpu.launch import processors, uses
from rankloom_kernels.gpu.product import delta_tile

if TYPE_CHECKING:
    from rankloom_kernels.gpu.deltas import Deltas

_PROGRAMS = 4


@triton.jit
def count_kernel(
    counts: tl.tensor,
    terms: tl.tensor,
    scales: tl.tensor,
    coefficients: tl.tensor,
    number: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    low: tl.tensor,
    shift: tl.tensor,
    BINS: tl.constexpr,
    FACTOR: tl.constexpr,
    PRECISION: tl.constexpr,
    ALIGNED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    STEP: tl.constexpr,
) -> None:
    """Persistent: a program takes every n-th tile, and adds up what is above the bins by itself.

    Semantics: ``counts[(bits(|Δ|) − low) >> shift] += 1``; all from BINS on count in that place.
    """
    wide = tl.zeros((), tl.int64) + width
    across = tl.cdiv(wide, COLUMNS)
    tiles = tl.cdiv(tl.zeros((), tl.int64) + height, ROWS) * across
    coefficient = tl.load(coefficients + number)
    above = tl.zeros((), tl.int64)
    tile = tl.program_id(0).to(tl.int64)
    while tile < tiles:
        row = tile // across * ROWS + tl.arange(0, ROWS)[:, None]
        column = tile % across * COLUMNS + tl.arange(0, COLUMNS)[None, :]
        inside = (row < height) & (column < wide)
        delta = coefficient * delta_tile(
            terms,
            scales,
            number,
            number + 1,
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
        place = (tl.abs(delta).to(tl.int32, bitcast=True) - low) >> shift
        above += tl.sum((inside & (place >= BINS)).to(tl.int32))
        one = tl.full((ROWS, COLUMNS), 1, tl.int32)
        tl.atomic_add(counts + place, one, mask=inside & (place >= 0) & (place < BINS))
        tile += tl.num_programs(0)
    tl.atomic_add(counts + BINS, above.to(tl.int32))


def count(deltas: Deltas, number: int, bins: int, low: int, shift: int) -> torch.Tensor:
    """Return how many elements of one delta lie in each of some ranges of bits.

    Args:
        deltas: of which one is meant; of less than 2³¹ elements.
        number: which.
        bins: number of ranges.
        low: first bits of the first.
        shift: binary logarithm of the width of each.

    Returns:
        (bins + 1,) int64; the last is the number of those above all ranges.
    """
    counts = torch.zeros(bins + 1, dtype=torch.int32, device=deltas.device)
    height, width = deltas.shape
    cut = deltas.cut
    tiles = triton.cdiv(height, cut.rows) * triton.cdiv(width, cut.columns)
    with uses(deltas.device):
        count_kernel[(min(tiles, processors(deltas.device) * _PROGRAMS),)](
            counts,
            deltas.terms,
            deltas.scales,
            deltas.coefficients,
            number,
            height,
            width,
            low,
            shift,
            BINS=bins,
            **deltas.constants,
            **deltas.options,
        )
    return counts.long()
