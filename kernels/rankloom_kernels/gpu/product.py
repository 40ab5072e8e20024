"""The part of a delta that a tile needs, from factors; every kernel is built around it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import triton
import triton.language as tl

from rankloom_kernels.gpu.launch import ELEMENT

if TYPE_CHECKING:
    from rankloom_kernels.gpu.tables import Dtypes


class Cut(NamedTuple):
    """How a kernel is cut.

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


@triton.jit
def delta_tile(
    terms: tl.tensor,
    scales: tl.tensor,
    first: tl.tensor,
    past: tl.tensor,
    row: tl.tensor,
    column: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    FACTOR: tl.constexpr,
    PRECISION: tl.constexpr,
    ALIGNED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    STEP: tl.constexpr,
) -> tl.tensor:
    """Return the sum of terms on a tile, but for the last coefficient.

    Semantics: ``(… ((b₁·a₁) · s₁/s₂ + b₂·a₂) · s₂/s₃ …)``, float32 (ROWS, COLUMNS). One accumulator
    serves any number of terms, and coefficients never meet 16-bit factors; an unrolled sum would
    spill.

    Args:
        terms: of a :class:`~rankloom_kernels.gpu.tables.Table`.
        scales: likewise.
        first: number of the first term.
        past: number after that of the last.
        row: (ROWS, 1) int64, of the whole matrix.
        column: (1, COLUMNS) int64.
        height: rows of the whole matrix.
        width: columns of it.
        FACTOR: element type of the factors.
        PRECISION: how products of float32 factors are formed.
        ALIGNED: whether rows of factors start at multiples of 16 bytes.
        ROWS: of the tile.
        COLUMNS: of the tile.
        STEP: of the ranks that one product takes.
    """
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for term in range(first, past):
        b = tl.load(terms + term * 3).to(tl.pointer_type(FACTOR))
        a = tl.load(terms + term * 3 + 1).to(tl.pointer_type(FACTOR))
        rank = tl.load(terms + term * 3 + 2)
        if ALIGNED:
            b = tl.multiple_of(b, 16)
            a = tl.multiple_of(a, 16)
            rank = tl.multiple_of(rank, 128 // FACTOR.primitive_bitwidth)
            width = tl.multiple_of(width, 128 // FACTOR.primitive_bitwidth)
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
    return total


def precision_for(out: torch.dtype) -> str:
    """Return how products of float32 factors are formed; of 16-bit ones they are exact.

    Three TF32 products err by some 2⁻²¹ of the delta, which no 16-bit result can show.
    """
    return "ieee" if out == torch.float32 else "tf32x3"


def specialised(
    dtypes: Dtypes, cut: Cut, *, aligned: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a kernel is compiled for: its constants, and options of the compiler."""
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
