"""A look at a kernel's result on a device before it is trusted there."""

from __future__ import annotations

from functools import cache

import torch

from rankloom_kernels.elect import Election, Keep, elect_reference
from rankloom_kernels.gpu.deltas import deltas
from rankloom_kernels.gpu.elect import merge_elected
from rankloom_kernels.gpu.low_rank import add_low_rank
from rankloom_kernels.gpu.strict import add_in_order
from rankloom_kernels.gpu.tables import Job
from rankloom_kernels.lowrank import merge_reference
from rankloom_kernels.strict import exact_parts, merge_in_order_
from rankloom_kernels.terms import Term

_SHAPE = (80, 144)
"""Whole tiles and parts of tiles."""


@cache
def differs(
    device: torch.device, weight: torch.dtype, out: torch.dtype, factors: torch.dtype
) -> str | None:
    """Return how the kernel's result differs from the float64 formula on a device, or ``None``.

    Compilers and drivers change under a kernel; this runs it once in a process, for each
    combination of dtypes, on two small deltas.

    Args:
        device: where the kernel runs.
        weight: dtype of the weight.
        out: dtype of the result.
        factors: dtype of the factors.
    """
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(_SHAPE, generator=generator).to(weight)
    terms = [_term(rank, factors, generator) for rank in (16, 24)]
    truth = merge_reference(start, terms)
    result = torch.full(_SHAPE, torch.nan, dtype=out, device=device)
    moved = tuple(Term(b.to(device), a.to(device), c) for b, a, c in terms)
    add_low_rank([Job(start.to(device), result, moved)])
    # Half a step of the result, and what float32, or three TF32 products, may lose of sums of 40
    # products that are of the order of 1.
    allowed = truth.abs() * (torch.finfo(out).eps / 2) + 1e-5
    wrong = int((~((result.cpu().double() - truth).abs() <= allowed)).sum())
    if wrong == 0:
        return None
    return f"{wrong} of {truth.numel()} elements of a trial on {device} are wrong ({weight}, {out})"


@cache
def differs_in_order(device: torch.device, weight: torch.dtype, out: torch.dtype) -> str | None:
    """Return how the strict kernel's bits differ from the reference on a device, or ``None``.

    Args:
        device: where the kernel runs.
        weight: dtype of the weight.
        out: dtype of the result.
    """
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(_SHAPE, generator=generator).to(weight)
    parts = exact_parts([_term(rank, torch.float32, generator) for rank in (3, 8)])
    truth = merge_in_order_(start, parts, torch.empty(_SHAPE, dtype=out))
    result = torch.full(_SHAPE, torch.nan, dtype=out, device=device)
    moved = tuple(Term(b.to(device), a.to(device), c) for b, a, c in parts)
    add_in_order([Job(start.to(device), result, moved)])
    if torch.equal(result.cpu(), truth):
        return None
    return f"bits of a trial on {device} differ ({weight}, {out})"


@cache
def deltas_differ(device: torch.device, factors: torch.dtype) -> str | None:
    """Return how deltas that kernels compute one by one differ from the formula, or ``None``.

    Args:
        device: where the kernels run.
        factors: dtype of the factors.
    """
    generator = torch.Generator().manual_seed(0)
    terms = [_term(rank, factors, generator) for rank in (16, 24)]
    truth = elect_reference(torch.zeros(_SHAPE), terms, _KEEP, _ELECTION, start=3)
    result = torch.full(_SHAPE, torch.nan, device=device)
    moved = [Term(b.to(device), a.to(device), c) for b, a, c in terms]
    weight = torch.zeros(_SHAPE, device=device)
    merge_elected(weight, result, deltas(moved), _KEEP, _ELECTION, 3)
    wrong = int((~((result.cpu().double() - truth).abs() <= 1e-5)).sum())
    if wrong == 0:
        return None
    return f"{wrong} of {truth.numel()} elements of a trial on {device} are wrong ({factors})"


_KEEP = Keep((0.5, 0.25), keys=(1, 2))
_ELECTION = Election((0.5, 0.25), sign_election="none", divide_by="none")


def _term(rank: int, dtype: torch.dtype, generator: torch.Generator) -> Term:
    out, into = _SHAPE
    b = torch.randn(out, rank, generator=generator).to(dtype)
    a = torch.randn(rank, into, generator=generator).to(dtype)
    return Term(b, a, 1 / (3 * rank))
