"""Adds deltas to 4-bit weights in groups; what is dequantised lives in registers only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import triton
import triton.language as tl

from rankloom_kernels.gpu.product import Cut, delta_tile

if TYPE_CHECKING:
    from rankloom_kernels.int4 import Int4

_ROUNDER = tl.constexpr(1.5 * 2.0**23)
"""Added and taken away again, it rounds float32 numbers below 2²² to the nearest even whole one."""

_LARGEST = tl.constexpr(3.4028234663852886e38)
"""The largest float32 number."""


@triton.jit
def inverse(scale: tl.tensor) -> tl.tensor:
    """See :func:`rankloom_kernels.int4.inverse`."""
    one = tl.full(scale.shape, 1.0, tl.float32)
    found = tl.div_rn(one, tl.where(scale == 0, one, scale))
    return tl.where(scale == 0, 0.0, tl.where(found > _LARGEST, _LARGEST, found))


@triton.jit
def rounded_up(values: tl.tensor, DTYPE: tl.constexpr) -> tl.tensor:
    """Return float32 numbers of at least 0 that a dtype holds, none smaller than it was."""
    if DTYPE == tl.float32:  # noqa: SIM300 - the first is the variable
        return values
    near = values.to(DTYPE)
    above = (near.to(tl.int16, bitcast=True) + 1).to(DTYPE, bitcast=True).to(tl.float32)
    near = near.to(tl.float32)
    return tl.where(near < values, above, near)


@triton.jit
def regrid(
    scale: tl.tensor,
    zero: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
    first: tl.tensor,
    last: tl.tensor,
    DTYPE: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """See :meth:`rankloom_kernels.int4.Int4.grid`; all float32."""
    factor = inverse(scale)
    bottom, top = low * factor + zero, high * factor + zero
    keeps = (bottom >= -0.5) & (bottom <= 15.5) & (top >= -0.5) & (top <= 15.5)
    keeps = keeps & ((scale != 0) | (low == high))
    step = tl.maximum(high / tl.maximum(15 - first, 1.0), -low / tl.maximum(last, 1.0))
    step = rounded_up(tl.maximum((high - low) / 15, step), DTYPE)
    middle = ((-low * inverse(step)) + _ROUNDER) - _ROUNDER
    middle = tl.where(middle > first, tl.where(middle < last, middle, last), first)
    return tl.where(keeps, scale, step), tl.where(keeps, zero, middle)


@triton.jit
def words_of(
    top: tl.tensor,
    left: tl.tensor,
    tall: tl.tensor,
    wide: tl.tensor,
    IS_BY_COLUMN: tl.constexpr,
    IS_TURNED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """Return where the words of a tile lie, and whether there are such."""
    if IS_BY_COLUMN:
        row = top // 8 + tl.arange(0, ROWS // 8)[:, None]
        column = left + tl.arange(0, COLUMNS)[None, :]
        tall = tl.cdiv(tall, 8)
    else:
        row = top + tl.arange(0, ROWS)[:, None]
        column = left // 8 + tl.arange(0, COLUMNS // 8)[None, :]
        wide = tl.cdiv(wide, 8)
    offset = column * tall + row if IS_TURNED else row * wide + column
    return offset, (row < tall) & (column < wide)


@triton.jit
def unpacked(word: tl.tensor, IS_BY_COLUMN: tl.constexpr) -> tl.tensor:
    """Return the 8 codes of each word, along rows or columns, as their own dimension."""
    eight = tl.arange(0, 8)
    if IS_BY_COLUMN:
        part = word[:, None, :] >> ((eight >> 1) + (eight & 1) * 4)[None, :, None] * 4
    else:
        part = word[:, :, None] >> eight[None, None, :] * 4
    return part & 15


@triton.jit
def packed(code: tl.tensor, IS_BY_COLUMN: tl.constexpr) -> tl.tensor:
    """Return the words of codes, (rows / 8, 8, columns) or (rows, columns / 8, 8)."""
    eight = tl.arange(0, 8)
    if IS_BY_COLUMN:
        word = tl.sum(code << ((eight >> 1) + (eight & 1) * 4)[None, :, None] * 4, axis=1)
    else:
        word = tl.sum(code << eight[None, None, :] * 4, axis=2)
    return word


@triton.jit
def reach(value: tl.tensor, inside: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """Return how far the last dimension reaches below and above 0, as bits of float32.

    As bits a NaN is the largest, and a comparison with it is false: it reaches furthest, both ways.
    """
    bits = value.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    below = tl.max(tl.where(inside & ~(value >= 0), bits, 0), axis=2)
    above = tl.max(tl.where(inside & ~(value <= 0), bits, 0), axis=2)
    return below, above


@triton.jit
def int4_kernel(
    words: tl.tensor,
    scale: tl.tensor,
    zero: tl.tensor,
    new_scale: tl.tensor,
    new_zero: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
    group: tl.tensor,
    groups: tl.tensor,
    first: tl.tensor,
    last: tl.tensor,
    terms: tl.tensor,
    scales: tl.tensor,
    past: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    READS: tl.constexpr,
    WRITES: tl.constexpr,
    IS_BY_COLUMN: tl.constexpr,
    IS_TURNED: tl.constexpr,
    SPAN: tl.constexpr,
    FACTOR: tl.constexpr,
    PRECISION: tl.constexpr,
    ALIGNED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    STEP: tl.constexpr,
) -> None:
    """One program for a tile, whose columns share a group ``SPAN`` by ``SPAN``.

    If those are whole groups, one launch does it all. Else the first finds how far each group
    reaches below and above 0, as bits; the second reads that and writes.
    """
    wide, tall = tl.zeros((), tl.int64) + width, tl.zeros((), tl.int64) + height
    across = tl.cdiv(wide, COLUMNS)
    tile = tl.program_id(0).to(tl.int64)
    top, left = tile // across * ROWS, tile % across * COLUMNS
    rows = top + tl.arange(0, ROWS)
    row, column = rows[:, None], left + tl.arange(0, COLUMNS)[None, :]
    PARTS: tl.constexpr = COLUMNS // SPAN
    part = left + tl.arange(0, PARTS) * SPAN
    number = tl.load(group + part, mask=part < wide, other=0)[None, :]
    known = (row < tall) & (part < wide)[None, :]
    place = row * groups + number
    old_scale = tl.load(scale + place, mask=known, other=0.0)
    old_zero = tl.load(zero + place, mask=known, other=0).to(tl.float32)
    DTYPE: tl.constexpr = old_scale.dtype
    old_scale = old_scale.to(tl.float32)

    offset, here = words_of(top, left, tall, wide, IS_BY_COLUMN, IS_TURNED, ROWS, COLUMNS)
    word = tl.load(words + offset, mask=here, other=0)
    codes = unpacked(word, IS_BY_COLUMN)
    code = tl.reshape(codes, (ROWS, PARTS, SPAN)).to(tl.float32)
    value = (code - old_zero[:, :, None]) * old_scale[:, :, None]
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
    value += tl.reshape(delta * tl.load(scales + past), (ROWS, PARTS, SPAN))
    inside = part[None, :, None] + tl.arange(0, SPAN)[None, None, :] < wide
    inside &= rows[:, None, None] < tall

    if READS:
        below = tl.load(low + place, mask=known, other=0)
        above = tl.load(high + place, mask=known, other=0)
    else:
        below, above = reach(value, inside)
    if WRITES:
        bottom, peak = -below.to(tl.float32, bitcast=True), above.to(tl.float32, bitcast=True)
        step, middle = regrid(old_scale, old_zero, bottom, peak, first, last, DTYPE)
        tl.store(new_scale + place, step.to(DTYPE), mask=known)
        tl.store(new_zero + place, middle.to(tl.uint8), mask=known)
        value = value * inverse(step)[:, :, None] + middle[:, :, None]
        value = tl.where(value > 15, 15.0, tl.where(value > 0, value, 0.0))  # NaN becomes 0
        code = tl.where(inside, ((value + _ROUNDER) - _ROUNDER).to(tl.int32), 0)
        word = packed(tl.reshape(code, codes.shape), IS_BY_COLUMN)
        tl.store(words + offset, word, mask=here)
    else:
        tl.atomic_max(low + place, below, mask=known)
        tl.atomic_max(high + place, above, mask=known)


class Parts(NamedTuple):
    """How columns of a tile are taken together.

    Attributes:
        span: that many, from each multiple of it on, share a group.
        are_groups: whether they are the whole group.
    """

    span: int
    are_groups: bool


def parts(group: torch.Tensor) -> Parts:
    """Return the largest parts that columns can be taken in; 1 if groups are of odd sizes.

    Args:
        group: (in,) int32, of each column.
    """
    column = torch.arange(group.shape[0], device=group.device)
    for size in (128, 64, 32):
        part = column // size
        if torch.equal(group[part * size], group):
            return Parts(size, bool((group == part).all()))
    return Parts(1, are_groups=False)


def cut_for(factors: torch.dtype, rank: int, span: int, *, aligned: bool) -> Cut:
    """Return the cut; see :func:`rankloom_kernels.gpu.low_rank.cut_for`.

    Where each column has a scale of its own, a tile of 128 would spill.
    """
    is_wide = factors == torch.float32
    step, stages = 16 if is_wide or rank <= 16 else 32, 2 if aligned and not is_wide else 1
    return Cut(16, 64 if span == 1 else 128, step, stages)


def add_int4(
    weight: Int4, cut_in: Parts, grid: tuple[int], rest: tuple[Any, ...], options: dict[str, Any]
) -> None:
    """Launch what :func:`rankloom_kernels.quantised.merge_quantised_` asks for.

    Args:
        weight: contiguous, or its transpose.
        cut_in: its :func:`parts`.
        grid: number of programs.
        rest: tables of terms, their number, rows and columns.
        options: constants of the kernel, and options of the compiler.
    """
    scale, zero = weight.scale.contiguous(), weight.zero.contiguous()
    span, are_groups = cut_in
    layout = {"IS_BY_COLUMN": weight.is_by_column, "IS_TURNED": weight.is_turned, "SPAN": span}
    low, high, new_scale, new_zero = weight.words, weight.words, scale, zero
    if not are_groups:
        low, high = (torch.zeros_like(scale, dtype=torch.int32) for _ in range(2))
        new_scale, new_zero = torch.empty_like(scale), torch.empty_like(zero)
    last = (weight.group, scale.shape[1], *map(float, weight.zeros), *rest)
    every = (weight.words, scale, zero, new_scale, new_zero, low, high, *last)
    if not are_groups:
        int4_kernel[grid](*every, READS=False, WRITES=False, **layout, **options)
    int4_kernel[grid](*every, READS=not are_groups, WRITES=True, **layout, **options)
    weight.scale.copy_(new_scale)
    weight.zero.copy_(new_zero)
