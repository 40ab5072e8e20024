"""Adds low-rank deltas to many matrices in one launch, reading and writing each element once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import triton
import triton.language as tl

from rankloom_kernels.gpu.launch import ELEMENT, processors, uses
from rankloom_kernels.gpu.tables import are_aligned, dtypes_of, ready, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankloom_kernels.gpu.tables import Dtypes, Job


class Cut(NamedTuple):
    """How the kernel is cut.

    Attributes:
        rows: of a tile.
        columns: of a tile.
        step: of the ranks that one product takes.
        stages: of loads that are under way at the same time.
    """

    rows: int
    columns: int
    step: int
    stages: int


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

    Semantics: ``out ← round(weight + s_N · (… ((b₁·a₁) · s₁/s₂ + b₂·a₂) · s₂/s₃ …))``. One
    accumulator serves any number of terms; an unrolled sum of N would spill.
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
                total = tl.zeros((ROWS, COLUMNS), tl.float32)
                for term in range(first, past):
                    b = tl.load(terms + term * 3).to(tl.pointer_type(FACTOR))
                    a = tl.load(terms + term * 3 + 1).to(tl.pointer_type(FACTOR))
                    rank = tl.load(terms + term * 3 + 2)
                    if ALIGNED:
                        b = tl.multiple_of(b, 16)
                        a = tl.multiple_of(a, 16)
                        rank = tl.multiple_of(rank, 128 // FACTOR.primitive_bitwidth)
                    total = total * tl.load(scales + term)
                    for start in range(0, rank, STEP):
                        k = start + tl.arange(0, STEP)
                        part_of_b = tl.load(
                            b + row * rank + k[None, :],
                            mask=(row < height) & (k[None, :] < rank),
                            other=0.0,
                        )
                        part_of_a = tl.load(
                            a + k[:, None] * width + column,
                            mask=(k[:, None] < rank) & (column < width),
                            other=0.0,
                        )
                        total = tl.dot(part_of_b, part_of_a, total, input_precision=PRECISION)
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


def specialised(
    dtypes: Dtypes, cut: Cut, *, aligned: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the kernel is compiled for: its constants, and options of the compiler."""
    constants = {
        "WEIGHT": ELEMENT[dtypes.weight],
        "OUT": ELEMENT[dtypes.out],
        "FACTOR": ELEMENT[dtypes.factors],
        "PRECISION": precision_for(dtypes.out),
        "ALIGNED": aligned,
        "ROWS": cut.rows,
        "COLUMNS": cut.columns,
        "STEP": cut.step,
    }
    # Left to itself, ptxas spills a few bytes to fit one more program on a multiprocessor.
    options = {"num_warps": 4, "num_stages": cut.stages, "maxnreg": 255, "enable_fp_fusion": True}
    return constants, options


def precision_for(out: torch.dtype) -> str:
    """Return how products of float32 factors are formed; of 16-bit ones they are exact.

    Three TF32 products err by some 2⁻²¹ of the delta, which no 16-bit result can show.
    """
    return "ieee" if out == torch.float32 else "tf32x3"
