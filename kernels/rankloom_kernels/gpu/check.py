"""A look at a kernel's result on a device before it is trusted there."""

from __future__ import annotations

from functools import cache, partial

import torch

from rankloom_kernels.dora import dora_reference
from rankloom_kernels.elect import Election, Keep, elect_reference
from rankloom_kernels.gpu.deltas import deltas
from rankloom_kernels.gpu.dora import give_length
from rankloom_kernels.gpu.elect import merge_elected
from rankloom_kernels.gpu.low_rank import add_low_rank
from rankloom_kernels.gpu.quantised import add_quantised
from rankloom_kernels.gpu.strict import add_in_order
from rankloom_kernels.gpu.tables import Dtypes, Job
from rankloom_kernels.int4 import Int4
from rankloom_kernels.lowrank import merge_reference
from rankloom_kernels.quantised import Fp8, Int8, Nf4, Quantised
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


@cache
def dora_differs(device: torch.device, dtypes: Dtypes) -> str | None:
    """Return how the DoRA kernel's result differs from the formula on a device, or ``None``.

    Args:
        device: where the kernel runs.
        dtypes: of weight, output and factors.
    """
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(_SHAPE, generator=generator).to(dtypes.weight)
    terms = [_term(rank, dtypes.factors, generator) for rank in (16, 24)]
    lengths = torch.rand(_SHAPE[0], generator=generator) * 12
    truth = dora_reference(start, terms, lengths)
    result = torch.full(_SHAPE, torch.nan, dtype=dtypes.out, device=device)
    moved = tuple(Term(b.to(device), a.to(device), c) for b, a, c in terms)
    give_length(Job(start.to(device), result, moved), lengths.to(device))
    allowed = truth.abs() * (torch.finfo(dtypes.out).eps / 2) + 1e-5
    wrong = int((~((result.cpu().double() - truth).abs() <= allowed)).sum())
    return f"{wrong} elements of a trial on {device} are wrong ({dtypes})" if wrong else None


@cache
def quantised_differs(device: torch.device, like: str, factors: torch.dtype) -> str | None:
    """Return how the result on quantised weights differs from torch's on a device, or ``None``.

    Args:
        device: where the kernel runs.
        like: name of a class of :mod:`rankloom_kernels.quantised`, or a layout of int4.
        factors: dtype of the factors.
    """
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(_BLOCKS, generator=generator)
    b, a = (torch.randn(size, generator=generator).to(factors) for size in ((80, 16), (16, 192)))
    for empty in _empty(like):
        start = empty.requantised(values)
        truth = start.requantised(merge_reference(start.dequantised(), [Term(b, a, 0.1)]).float())
        found = _moved(start, device)
        add_quantised(found, [Term(b.to(device), a.to(device), 0.1)])
        wrong = int((_bytes(found).cpu() != _bytes(truth)).sum())
        # A sum may lie so near to the middle of two codes that float32 takes the other.
        near = torch.allclose(found.scale.cpu(), truth.scale, rtol=1e-5)
        if wrong > _MAY_DIFFER or not near:
            return f"{wrong} codes of a trial on {device} are wrong ({like}, {factors})"
    return None


def _empty(like: str) -> list[Quantised]:
    """Return weights of a kind; their values do not matter."""
    kinds: dict[str, Quantised] = {
        "Nf4": Nf4(torch.zeros(80, 96, dtype=torch.uint8), torch.zeros(80, 3)),
        "Int8": Int8(torch.zeros(80, 192, dtype=torch.int8), torch.ones(80, 1)),
        "Fp8": Fp8(torch.zeros(80, 192).to(torch.float8_e4m3fn), torch.ones(1, 2)),
    }
    if like in kinds:
        return [kinds[like]]
    return [weight for size in (32, 48) for weight in _int4(size) if weight.layout == like]


def _int4(size: int) -> list[Int4]:
    """Return a weight in each layout; groups of 32 take one launch, of 48 two."""
    group = torch.arange(_BLOCKS[1], dtype=torch.int32) // size
    scale = torch.zeros(_BLOCKS[0], _BLOCKS[1] // size)
    zeros = partial(torch.zeros, dtype=torch.int32)
    codes = [zeros(80, 24), zeros(24, 80).T, zeros(10, 192), zeros(192, 10).T]
    return [Int4(each, scale, scale.to(torch.uint8), group) for each in codes]


def _bytes(weight: Quantised) -> torch.Tensor:
    words = weight.words if isinstance(weight, Int4) else weight.codes
    return words.view(torch.uint8)


def _moved(weight: Quantised, device: torch.device) -> Quantised:
    codes, scale = weight.codes.to(device), weight.scale.to(device)
    if isinstance(weight, Int4):
        return Int4(codes, scale, weight.zero.to(device), weight.group.to(device), weight.zeros)
    return type(weight)(codes, scale)


_BLOCKS = (80, 192)
_MAY_DIFFER = 8

_KEEP = Keep((0.5, 0.25), keys=(1, 2))
_ELECTION = Election((0.5, 0.25), sign_election="none", divide_by="none")


def _term(rank: int, dtype: torch.dtype, generator: torch.Generator) -> Term:
    out, into = _SHAPE
    b = torch.randn(out, rank, generator=generator).to(dtype)
    a = torch.randn(rank, into, generator=generator).to(dtype)
    return Term(b, a, 1 / (3 * rank))
