"""Adds deltas to quantised weights; what is dequantised lives in registers only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl

from rankloom_kernels.gpu import int4
from rankloom_kernels.gpu.launch import uses
from rankloom_kernels.gpu.product import Cut, delta_tile, specialised
from rankloom_kernels.gpu.tables import Dtypes, Job, are_aligned, factor_dtype, ready, table
from rankloom_kernels.int4 import Int4
from rankloom_kernels.quantised import FP8_BLOCK, NF4_CODES, Nf4, nf4_limits, scales

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankloom_kernels.quantised import Fp8, Int8, Quantised
    from rankloom_kernels.terms import Term

_ROUNDER = tl.constexpr(1.5 * 2.0**23)
"""Added and taken away again, it rounds float32 numbers below 2²² to the nearest even whole one."""


@triton.jit
def fp8_to_float(code: tl.tensor) -> tl.tensor:
    """Widen e4m3 numbers, given as int32; exact, and on GPUs that have none."""
    exponent = (code >> 3) & 15
    fraction = code & 7
    normal = (((exponent + 120) << 23) | (fraction << 20)).to(tl.float32, bitcast=True)
    small = fraction.to(tl.float32) * 0.001953125
    size = tl.where(exponent == 0, small, normal)
    size = tl.where((code & 127) == 127, float("nan"), size)
    return tl.where((code & 128) != 0, -size, size)


@triton.jit
def float_to_fp8(value: tl.tensor) -> tl.tensor:
    """Round to the nearest even e4m3 number, as int32; values of at most 448."""
    size = tl.abs(value)
    bits = size.to(tl.int32, bitcast=True)
    normal = ((bits + 0x7FFFF + ((bits >> 20) & 1)) >> 20) - (120 << 3)
    small = ((size * 512 + _ROUNDER) - _ROUNDER).to(tl.int32)
    code = tl.where(size < 0.015625, small, normal)
    code = tl.where(value != value, 127, code)  # noqa: PLR0124 - a NaN is not
    return tl.where(value.to(tl.int32, bitcast=True) < 0, code | 128, code)


@triton.jit
def nf4_kernel(
    codes: tl.tensor,
    scale: tl.tensor,
    table: tl.tensor,
    limits: tl.tensor,
    terms: tl.tensor,
    scales: tl.tensor,
    past: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    FACTOR: tl.constexpr,
    PRECISION: tl.constexpr,
    ALIGNED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    STEP: tl.constexpr,
) -> None:
    """One program for a tile, which holds whole blocks of 64: one pass over codes and scales."""
    wide = tl.zeros((), tl.int64) + width
    across = tl.cdiv(wide, COLUMNS)
    tile = tl.program_id(0).to(tl.int64)
    rows = tile // across * ROWS + tl.arange(0, ROWS)
    left = tile % across * COLUMNS
    row, column = rows[:, None], left + tl.arange(0, COLUMNS)[None, :]
    byte = left // 2 + tl.arange(0, COLUMNS // 2)[None, :]
    here = (row < height) & (byte < wide // 2)
    pair = tl.load(codes + row * (wide // 2) + byte, mask=here, other=0).to(tl.int32)
    code = tl.interleave(pair >> 4, pair & 15)
    block = left // 64 + tl.arange(0, COLUMNS // 64)[None, :]
    inside = (row < height) & (block < wide // 64)
    place = scale + row * (wide // 64) + block
    old = tl.load(place, mask=inside, other=0.0)
    values = tl.reshape(tl.load(table + code), (ROWS, COLUMNS // 64, 64)) * old[:, :, None]
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
    last_scale = tl.load(scales + past)
    values += tl.reshape(delta * last_scale, (ROWS, COLUMNS // 64, 64))
    new = tl.max(tl.abs(values), axis=2)
    code = tl.zeros((ROWS, COLUMNS // 64, 64), tl.int32)
    for number in tl.static_range(15):
        limit = tl.load(limits + number) * new
        code += (values > limit[:, :, None]).to(tl.int32)
    code = tl.where(new[:, :, None] > 0, code, 7)
    first, second = tl.split(tl.reshape(code, (ROWS, COLUMNS // 2, 2)))
    tl.store(codes + row * (wide // 2) + byte, (first << 4 | second).to(tl.uint8), mask=here)
    tl.store(place, new, mask=inside)


@triton.jit
def groups_kernel(
    codes: tl.tensor,
    scale: tl.tensor,
    amax: tl.tensor,
    inverse: tl.tensor,
    terms: tl.tensor,
    scales: tl.tensor,
    past: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    group_rows: tl.tensor,
    group_columns: tl.tensor,
    largest: tl.tensor,
    WRITES: tl.constexpr,
    IS_FLOAT: tl.constexpr,
    FACTOR: tl.constexpr,
    PRECISION: tl.constexpr,
    ALIGNED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    STEP: tl.constexpr,
) -> None:
    """First launch: the largest magnitude of each group, as bits; second: new codes.

    A group's columns are a whole number of tiles, or all columns; its rows one, or of whole tiles,
    or all.
    """
    wide = tl.zeros((), tl.int64) + width
    across = tl.cdiv(wide, COLUMNS)
    tile = tl.program_id(0).to(tl.int64)
    rows = tile // across * ROWS + tl.arange(0, ROWS)
    left = tile % across * COLUMNS
    row, column = rows[:, None], left + tl.arange(0, COLUMNS)[None, :]
    inside = (row < height) & (column < wide)
    group = rows // group_rows * tl.cdiv(wide, group_columns) + left // group_columns
    is_row = rows < height
    code = tl.load(codes + row * wide + column, mask=inside, other=0).to(tl.int32)
    factor = tl.load(scale + group, mask=is_row, other=0.0)[:, None]
    value = (fp8_to_float(code) if IS_FLOAT else code.to(tl.float32)) * factor
    last_scale = tl.load(scales + past)
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
    value += delta * last_scale
    if WRITES:
        value *= tl.load(inverse + group, mask=is_row, other=0.0)[:, None]
        # A comparison with NaN is false, so that it stays one.
        value = tl.where(value > largest, largest, tl.where(value < -largest, -largest, value))
        whole = ((value + _ROUNDER) - _ROUNDER).to(tl.int32)
        code = float_to_fp8(value) if IS_FLOAT else whole
        tl.store(codes + row * wide + column, code.to(codes.dtype.element_ty), mask=inside)
    else:
        size = tl.max(tl.where(inside, tl.abs(value), 0.0), axis=1)
        tl.atomic_max(amax + group, size.to(tl.int32, bitcast=True), mask=is_row)


def cut_for(factors: torch.dtype, rank: int, *, aligned: bool) -> Cut:
    """Return the cut; see :func:`rankloom_kernels.gpu.low_rank.cut_for`."""
    is_wide = factors == torch.float32
    return Cut(32, 64, 16 if is_wide or rank <= 16 else 32, 2 if aligned and not is_wide else 1)


def compiled_for(
    factors: torch.dtype, cut: Cut, *, aligned: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the constants that all kernels here share, and options of the compiler."""
    dtypes = Dtypes(torch.bfloat16, torch.bfloat16, factors)
    constants, options = specialised(dtypes, cut, aligned=aligned)
    del constants["WEIGHT"], constants["OUT"]
    return constants, options


def add_quantised(weight: Quantised, terms: Sequence[Term]) -> None:
    """Launch what :func:`rankloom_kernels.quantised.merge_quantised_` asks for."""
    like = weight.words if isinstance(weight, Int4) else weight.codes
    whole = Job(like, like, tuple(term for term in terms if term.b.shape[1]))
    factors = factor_dtype([whole])
    whole = ready(whole, factors)
    aligned = are_aligned([whole])
    rank = max((term.b.shape[1] for term in whole.terms), default=0)
    if isinstance(weight, Int4):
        cut_in = int4.parts(weight.group)
        cut = int4.cut_for(factors, rank, cut_in.span, aligned=aligned)
    else:
        cut = cut_for(factors, rank, aligned=aligned)
    work = table([whole], (cut.rows, cut.columns))
    if like.numel() == 0:
        return
    constants, options = compiled_for(factors, cut, aligned=aligned)
    height, width = weight.shape
    grid = (triton.cdiv(height, cut.rows) * triton.cdiv(width, cut.columns),)
    rest = (work.terms, work.scales, len(whole.terms), height, width)
    with uses(like.device):
        if isinstance(weight, Nf4):
            codes = torch.tensor(NF4_CODES, device=like.device)
            limits = nf4_limits(like.device)
            nf4_kernel[grid](like, weight.scale, codes, limits, *rest, **constants, **options)
        elif isinstance(weight, Int4):
            int4.add_int4(weight, cut_in, grid, rest, constants | options)
        else:
            _in_groups(weight, grid, rest, constants | options)


def _in_groups(
    weight: Int8 | Fp8, grid: tuple[int], rest: tuple[Any, ...], options: dict[str, Any]
) -> None:
    is_float = weight.codes.dtype == torch.float8_e4m3fn
    codes = weight.codes.view(torch.uint8) if is_float else weight.codes
    bits = torch.zeros(weight.scale.shape, dtype=torch.int32, device=codes.device)
    scale, inverse = weight.scale, weight.scale
    for writes in (False, True):
        groups_kernel[grid](
            codes,
            weight.scale,
            bits,
            inverse,
            *rest,
            *weight.group,
            weight.largest,
            WRITES=writes,
            IS_FLOAT=is_float,
            **options,
        )
        if not writes:
            scale, inverse = scales(bits.view(torch.float32), weight.largest)
    weight.scale.copy_(scale)


assert FP8_BLOCK % 64 == 0  # noqa: S101 - a tile must not reach into two groups
