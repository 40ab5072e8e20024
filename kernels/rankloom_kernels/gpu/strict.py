"""Adds low-rank deltas with the bits of :mod:`rankloom_kernels.strict`, whatever the device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import triton
import triton.language as tl

from rankloom_kernels.gpu.launch import ELEMENT, processors, uses
from rankloom_kernels.gpu.tables import table

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from rankloom_kernels.gpu.tables import Job

_TILE = (32, 64)
_PROGRAMS = 8


@triton.jit
def rounded_to_odd(values: tl.tensor) -> tl.tensor:
    """See :func:`rankloom_kernels.strict.rounded_to_odd`."""
    near = values.to(tl.float32)
    back = near.to(tl.float64)
    bits = near.to(tl.int32, bitcast=True)
    odd = (bits - (tl.abs(back) > tl.abs(values)).to(tl.int32)) | 1
    keeps = (back == values) | (values != values)  # noqa: PLR0124 - a NaN is not
    return tl.where(keeps, bits, odd).to(tl.float32, bitcast=True)


@triton.jit
def in_order_kernel(
    modules: tl.tensor,
    terms: tl.tensor,
    count: tl.tensor,
    WEIGHT: tl.constexpr,
    OUT: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    """Persistent, as :func:`rankloom_kernels.gpu.low_rank.low_rank_kernel`; no matrix units."""
    tile = tl.program_id(0).to(tl.int64)
    begin = tl.zeros((), tl.int64)
    for module in range(count):
        entry = modules + module * 9
        end = tl.load(entry + 8)
        if tile < end:
            weight = tl.load(entry).to(tl.pointer_type(WEIGHT))
            out = tl.load(entry + 1).to(tl.pointer_type(OUT))
            height = tl.load(entry + 2)
            width = tl.load(entry + 3)
            weight_stride = tl.load(entry + 4)
            out_stride = tl.load(entry + 5)
            first = tl.load(entry + 6)
            past = tl.load(entry + 7)
            across = tl.cdiv(width, COLUMNS)
            while tile < end:
                row = (tile - begin) // across * ROWS + tl.arange(0, ROWS)[:, None]
                column = (tile - begin) % across * COLUMNS + tl.arange(0, COLUMNS)[None, :]
                inside = (row < height) & (column < width)
                old = tl.load(weight + row * weight_stride + column, mask=inside, other=0.0)
                total = old.to(tl.float64)
                for term in range(first, past):
                    b = tl.load(terms + term * 3).to(tl.pointer_type(tl.float32))
                    a = tl.load(terms + term * 3 + 1).to(tl.pointer_type(tl.float32))
                    rank = tl.load(terms + term * 3 + 2)
                    for k in range(rank):
                        left = tl.load(b + row * rank + k, mask=row < height, other=0.0)
                        right = tl.load(a + k * width + column, mask=column < width, other=0.0)
                        total += left.to(tl.float64) * right.to(tl.float64)
                if OUT.is_fp64():
                    result = total
                elif OUT.is_fp32():
                    result = total.to(tl.float32)
                else:
                    result = rounded_to_odd(total).to(OUT)
                tl.store(out + row * out_stride + column, result, mask=inside)
                tile += tl.num_programs(0)
        begin = end


def add_in_order(jobs: Sequence[Job]) -> None:
    """Carry out merges whose weights have one dtype and whose outputs have one dtype.

    Args:
        jobs: at least one, all on one device; their terms are contiguous float32 with coefficient
            1, as :func:`rankloom_kernels.gpu.tables.ready` makes them.
    """
    weight, out = jobs[0][:2]
    work = table(jobs, _TILE)
    if work.tiles == 0:
        return
    constants, options = specialised(weight.dtype, out.dtype)
    programs = min(work.tiles, processors(out.device) * _PROGRAMS)
    with uses(out.device):
        in_order_kernel[(programs,)](work.modules, work.terms, len(jobs), **constants, **options)


def specialised(weight: torch.dtype, out: torch.dtype) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the kernel is compiled for: its constants, and options of the compiler."""
    constants = {
        "WEIGHT": ELEMENT[weight],
        "OUT": ELEMENT[out],
        "ROWS": _TILE[0],
        "COLUMNS": _TILE[1],
    }
    return constants, {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}
