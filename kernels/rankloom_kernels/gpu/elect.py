"""Merges what stays of several deltas into a weight; no delta is ever stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from rankloom_kernels.gpu.launch import ELEMENT, uses
from rankloom_kernels.gpu.product import delta_tile
from rankloom_kernels.masks import GAMMA, MIX

if TYPE_CHECKING:
    from rankloom_kernels.elect import Election, Keep
    from rankloom_kernels.gpu.deltas import Deltas

_GAMMA = tl.constexpr(GAMMA)
_FIRST, _SECOND = (tl.constexpr(factor) for _, factor in MIX)


@triton.jit
def random_numbers(key: tl.tensor, index: tl.tensor) -> tl.tensor:
    """Return the numbers of :func:`rankloom_kernels.masks.halves` at any indices, as int64."""
    word = (key + (index // 2 + 1) * _GAMMA).to(tl.uint64, bitcast=True)
    word = (word ^ (word >> 30)).to(tl.int64, bitcast=True) * _FIRST
    word = word.to(tl.uint64, bitcast=True)
    word = (word ^ (word >> 27)).to(tl.int64, bitcast=True) * _SECOND
    word = word.to(tl.uint64, bitcast=True)
    word = (word ^ (word >> 31)).to(tl.int64, bitcast=True)
    return tl.where(index % 2 == 0, (word << 32) >> 32, word >> 32)


@triton.jit
def elect_kernel(
    weight: tl.tensor,
    out: tl.tensor,
    terms: tl.tensor,
    scales: tl.tensor,
    numbers: tl.tensor,
    streams: tl.tensor,
    count: tl.tensor,
    start: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    weight_stride: tl.tensor,
    out_stride: tl.tensor,
    factor: tl.tensor,
    WEIGHT: tl.constexpr,
    OUT: tl.constexpr,
    DROPS: tl.constexpr,
    ELECTS: tl.constexpr,
    BY_WEIGHT: tl.constexpr,
    BY_COUNT: tl.constexpr,
    DIVIDES: tl.constexpr,
    FACTOR: tl.constexpr,
    PRECISION: tl.constexpr,
    ALIGNED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    STEP: tl.constexpr,
) -> None:
    """One program for a tile: each delta is computed once, for both signs.

    What votes for plus and what votes for minus are summed apart, and so are what either would
    give, so that the sign need not be known while deltas are added. ``numbers`` has rows of
    (coefficient, weight, least magnitude or rate, share in the divisor).
    """
    wide = tl.zeros((), tl.int64) + width
    across = tl.cdiv(wide, COLUMNS)
    tile = tl.program_id(0).to(tl.int64)
    row = tile // across * ROWS + tl.arange(0, ROWS)[:, None]
    column = tile % across * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    inside = (row < height) & (column < wide)
    plus = tl.zeros((ROWS, COLUMNS), tl.float32)
    minus = tl.zeros((ROWS, COLUMNS), tl.float32)
    plus_votes = tl.zeros((ROWS, COLUMNS), tl.float32)
    minus_votes = tl.zeros((ROWS, COLUMNS), tl.float32)
    plus_shares = tl.zeros((ROWS, COLUMNS), tl.float32)
    minus_shares = tl.zeros((ROWS, COLUMNS), tl.float32)
    for number in range(count):
        entry = numbers + number * 4
        delta = tl.load(entry) * delta_tile(
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
        if DROPS:
            index = (row + start) * wide + column
            drawn = random_numbers(tl.load(streams + number * 2), index)
            delta = tl.where(drawn < tl.load(streams + number * 2 + 1), delta, 0.0)
            delta = delta / tl.load(entry + 2)
        else:
            delta = tl.where(tl.abs(delta) >= tl.load(entry + 2), delta, 0.0)
        share = tl.load(entry + 3)
        value = delta * tl.load(entry + 1)
        if not ELECTS:
            plus += value
        else:
            vote = value if BY_WEIGHT else delta
            is_plus, is_minus = vote > 0, vote < 0
            plus += tl.where(is_plus, value, 0.0)
            minus += tl.where(is_minus, value, 0.0)
            plus_votes += tl.where(is_plus, 1.0 if BY_COUNT else vote, 0.0)
            minus_votes += tl.where(is_minus, 1.0 if BY_COUNT else -vote, 0.0)
            plus_shares += tl.where(is_plus, share, 0.0)
            minus_shares += tl.where(is_minus, share, 0.0)
    if ELECTS:
        is_plus = plus_votes >= minus_votes
        plus = tl.where(is_plus, plus, minus)
        if DIVIDES:
            shares = tl.where(is_plus, plus_shares, minus_shares)
            plus = plus / tl.where(shares > 0, shares, 1.0)
    old = tl.load(weight + row * weight_stride + column, mask=inside, other=0.0)
    total = old.to(tl.float32) + plus * factor
    tl.store(out + row * out_stride + column, total.to(OUT), mask=inside)


def merge_elected(
    weight: torch.Tensor,
    out: torch.Tensor,
    deltas: Deltas,
    keep: Keep,
    election: Election,
    start: int,
) -> None:
    """Launch the kernel; see :func:`rankloom_kernels.elect.elect_merge_`."""
    if out.numel() == 0:
        return
    height, width = out.shape
    rows = zip(deltas.coefficients.tolist(), election.weights, keep.bounds, strict=True)
    numbers = [[*row, share] for row, share in zip(rows, election.shares, strict=True)]
    cut = deltas.cut
    with uses(out.device):
        elect_kernel[(triton.cdiv(height, cut.rows) * triton.cdiv(width, cut.columns),)](
            weight,
            out,
            deltas.terms,
            deltas.scales,
            torch.tensor(numbers, dtype=torch.float32).to(out.device),
            torch.tensor(keep.streams, dtype=torch.int64).to(out.device),
            len(numbers),
            start,
            height,
            width,
            weight.stride(0),
            out.stride(0),
            election.factor,
            WEIGHT=ELEMENT[weight.dtype],
            OUT=ELEMENT[out.dtype],
            **switches(keep, election),
            **deltas.constants,
            **deltas.options,
        )


def switches(keep: Keep, election: Election) -> dict[str, bool]:
    """Return the constants that say what the kernel does."""
    return {
        "DROPS": keep.drops,
        "ELECTS": election.sign_election != "none",
        "BY_WEIGHT": election.sign_election == "weighted",
        "BY_COUNT": election.vote == "count",
        "DIVIDES": election.divide_by != "none",
    }
