"""Add low-rank deltas to a weight in place, rounded once whatever their number."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import torch

from rankloom_kernels.narrow import add_narrow_
from rankloom_kernels.refine import Doubtful, cancelled, mean_size, near_ties
from rankloom_kernels.terms import Folded, Term, fold
from rankloom_kernels.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_NARROW = {torch.float16, torch.bfloat16}

_LARGE = 1.0
"""Largest element that a delta can have, in mean weights, above which so many float32 sums would be
rounded to the wrong one of two neighbours that ties are settled."""

_TINY = torch.finfo(torch.float32).tiny


def accumulator(*dtypes: torch.dtype) -> torch.dtype:
    """Return what to sum in when these dtypes take part: float64 for itself, else float32.

    Raises:
        TypeError: a dtype is not float64, float32, float16 or bfloat16.
    """
    for dtype in dtypes:
        if dtype not in {torch.float64, torch.float32, *_NARROW}:
            message = f"cannot add a delta to a weight of {dtype}"
            raise TypeError(message)
    return torch.float64 if torch.float64 in dtypes else torch.float32


@torch.no_grad()
def merge_(
    weight: torch.Tensor,
    terms: Sequence[Term] | Folded,
    *,
    out: torch.Tensor | None = None,
    accumulate: torch.dtype | None = None,
    workspace: Workspace | None = None,
) -> torch.Tensor:
    """Add low-rank deltas to a weight in place; every element is rounded once.

    Semantics: ``out ← round(weight + Σ cᵢ · bᵢ @ aᵢ)``, summed in ``accumulate`` over tiles of
    whole rows, so that beyond ``weight`` only one tile and the folded factors are held.

    A 16-bit result is the neighbour of the float64 result rounded once, or that result itself
    (all but 100 elements in a million), also where weight and delta cancel. One exception: if all
    factors are bfloat16 numbers and all coefficients one, but for powers of two, a processor that
    multiplies those is left to its float32 sum, which errs by 2⁻²¹ of the largest element of the
    delta and takes numbers below 2⁻¹²⁶ for 0.

    Args:
        weight: (out, in); float64, float32, float16 or bfloat16.
        terms: deltas of the same shape on the same device.
        out: where to write, of the same shape and any of these dtypes; default: into ``weight``.
        accumulate: float32 or float64; default: as the terms were folded, else float64 if a
            tensor is float64, else float32.
        workspace: keeps buffers between calls.

    Returns:
        ``out``.

    Raises:
        ValueError: shapes differ, or there are no terms.
        TypeError: the weight's or the output's dtype is not one of the four.
    """
    out = weight if out is None else out
    default = accumulator(weight.dtype, out.dtype)
    delta = terms if isinstance(terms, Folded) else _fold(terms, weight, out, accumulate or default)
    if weight.shape != delta.shape or out.shape != delta.shape:
        message = f"weight {tuple(weight.shape)}, out {tuple(out.shape)}, delta {delta.shape}"
        raise ValueError(message)
    workspace = workspace or Workspace()
    height = workspace.rows(weight.shape[1], out.dtype)
    doubtful = Doubtful(out, delta)
    with _full_precision():
        for start in range(0, weight.shape[0], height):
            stop = min(start + height, weight.shape[0])
            tile = _Tile(start, weight[start:stop], delta.rows(start, stop), out[start:stop])
            _merge_tile(tile, doubtful, workspace)
            if doubtful.are_many:
                doubtful.sum_again()
        doubtful.sum_again()
    return out


def _fold(
    terms: Sequence[Term], weight: torch.Tensor, out: torch.Tensor, dtype: torch.dtype
) -> Folded:
    return fold(terms, dtype, for_bfloat16=weight.dtype == out.dtype == torch.bfloat16)


class _Tile(NamedTuple):
    """Rows from ``start`` on of a weight, of what is added to it and of where it is written."""

    start: int
    weight: torch.Tensor
    delta: Folded
    out: torch.Tensor


def _merge_tile(tile: _Tile, doubtful: Doubtful, workspace: Workspace) -> None:
    start, weight, delta, out = tile
    if out.dtype == delta.dtype:  # the output itself is the accumulator
        total = out if out.data_ptr() == weight.data_ptr() else out.copy_(weight)
        total.addmm_(delta.b, delta.a)
        return
    rounds = delta.dtype == torch.float32 and out.dtype in _NARROW
    share = float(delta.reach.max()) / max(mean_size(weight), _TINY) if rounds else 0.0
    parts = delta.narrow if weight.dtype == out.dtype == torch.bfloat16 else None
    if parts and share <= parts.most:
        if found := add_narrow_(weight, delta, parts, out, workspace):
            doubtful.add(start, *found)
        return
    rows, columns = weight.shape
    total = workspace.tile(rows, columns, delta.dtype, weight.device).copy_(weight)
    total.addmm_(delta.b, delta.a)
    if rounds:
        precision = torch.finfo(out.dtype).eps
        doubtful.add(start, weight, cancelled(total, delta, precision))
        if share > _LARGE:
            doubtful.add(start, weight, near_ties(total, precision, workspace.beside))
    out.copy_(total)


@contextmanager
def _full_precision() -> Iterator[None]:
    """Form float32 products in float32, whatever the process allows (TF32, bfloat16)."""
    before = torch.get_float32_matmul_precision()
    if before == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def merge_reference(
    weight: torch.Tensor, terms: Sequence[Term], *, dtype: torch.dtype = torch.float64
) -> torch.Tensor:
    """Return ``weight + Σ cᵢ · bᵢ @ aᵢ`` in ``dtype``, written as the formula reads.

    The truth that :func:`merge_` is tested against; it materialises every delta.
    """
    total = weight.to(dtype)
    for b, a, coefficient in terms:
        total = total + coefficient * (b.to(dtype) @ a.to(dtype))
    return total
