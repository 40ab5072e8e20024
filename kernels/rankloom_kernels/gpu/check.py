"""A look at a kernel's result on a device before it is trusted there."""

from __future__ import annotations

from functools import cache

import torch

from rankloom_kernels.gpu.low_rank import add_low_rank
from rankloom_kernels.gpu.tables import Job
from rankloom_kernels.lowrank import merge_reference
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


def _term(rank: int, dtype: torch.dtype, generator: torch.Generator) -> Term:
    out, into = _SHAPE
    b = torch.randn(out, rank, generator=generator).to(dtype)
    a = torch.randn(rank, into, generator=generator).to(dtype)
    return Term(b, a, 1 / (3 * rank))
