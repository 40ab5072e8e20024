"""Adds low-rank deltas to many matrices in one launch, reading and writing each element once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from rankloom_kernels.gpu.launch import processors, uses
from rankloom_kernels.gpu.product import Cut, delta_tile, specialised
from rankloom_kernels.gpu.tables import are_aligned, dtypes_of, ready, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankloom_kernels.gpu.tables import Dtypes, Job


def cut_for(dtypes: Dtypes, rank: int, *, aligned: bool) -> Cut:
    """Return the cut for dtypes of weight, output and factors.

    Chosen by what ptxas reports for sm_80, sm_90 and sm_100, where larger ones spill registers; on
    sm_90 bfloat16 factors take 214 at rank 16. Speed on a card is not measured yet.

    Args:
        dtypes: of weight, output and factors.
        rank: the largest of all terms.
        aligned: as of :class:`~rankloom_kernels.gpu.tables.Table`.
    """
    if dtypes.factors == torch.float32:
        height = 64 if aligned and dtypes.out != torch.float32 else 32
        return Cut(height, 64, 16, 2 if aligned else 1)
    step = 16 if rank <= 16 else 32
    if not aligned:
        return Cut(32, 64, step, 1)
    return Cut(64, 64 if torch.float32 in dtypes else 128, step, 2)


@triton.jit
def low_rank_kernel(
    modules: tl.tensor,
    terms: tl.tensor,
    scales: tl.tensor,
    count: tl.tensor,
    lasts: tl.tensor,
    WEIGHT: tl.constexpr,
    OUT: tl.constexpr,
    FACTOR: tl.constexpr,
    PRECISION: tl.constexpr,
    ALIGNED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    STEP: tl.constexpr,
) -> None:
    """Persistent: a program takes every n-th tile of all modules, n being the programs.

    Semantics: ``out ← round(weight + Σ cᵢ · bᵢ @ aᵢ)``.
    """
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
            last_scale = tl.load(scales + lasts + module)
            if ALIGNED:
                weight = tl.multiple_of(weight, 16)
                out = tl.multiple_of(out, 16)
                weight_stride = tl.multiple_of(weight_stride, 128 // WEIGHT.primitive_bitwidth)
                out_stride = tl.multiple_of(out_stride, 128 // OUT.primitive_bitwidth)
                width = tl.multiple_of(width, 128 // FACTOR.primitive_bitwidth)
            while tile < end:
                # All of these are 64 bits wide and depend on the tile: what does not would be kept
                # in registers from tile to tile, and spill.
                row = (tile - begin) // across * ROWS + tl.arange(0, ROWS)[:, None]
                column = (tile - begin) % across * COLUMNS + tl.arange(0, COLUMNS)[None, :]
                inside = (row < height) & (column < width)
                # Asked for first, so that it is under way during the products.
                old = tl.load(weight + row * weight_stride + column, mask=inside, other=0.0)
                total = delta_tile(
                    terms,
                    scales,
                    first,
                    past,
                    row,
                    column,
                    height,
                    width,
                    FACTOR,
                    PRECISION,
                    ALIGNED,
                    ROWS,
                    COLUMNS,
                    STEP,
                )
                total = old.to(tl.float32) + total * last_scale
                tl.store(out + row * out_stride + column, total.to(OUT), mask=inside)
                tile += tl.num_programs(0)
        begin = end


def add_low_rank(jobs: Sequence[Job]) -> None:
    """Carry out merges whose weights have one dtype and whose outputs have one dtype.

    Args:
        jobs: at least one, all on one device; float32, float16 or bfloat16.
    """
    dtypes, device = dtypes_of(jobs), jobs[0].out.device
    jobs = [ready(item, dtypes.factors) for item in jobs]
    aligned = are_aligned(jobs)
    rank = max((term.b.shape[1] for item in jobs for term in item.terms), default=0)
    cut = cut_for(dtypes, rank, aligned=aligned)
    work = table(jobs, (cut.rows, cut.columns))
    if work.tiles == 0:
        return
    constants, options = specialised(dtypes, cut, aligned=aligned)
    programs = min(work.tiles, processors(device) * _PROGRAMS)
    with uses(device):
        low_rank_kernel[(programs,)](
            work.modules,
            work.terms,
            work.scales,
            len(jobs),
            work.terms.shape[0],
            **constants,
            **options,
        )


_PROGRAMS = 2
"""Programs on a multiprocessor: as many fit, and one computes while the other waits for memory."""
