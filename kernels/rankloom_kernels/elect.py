"""Merges what stays of several deltas into a weight: TIES (arXiv 2306.01708), DARE (2311.03099)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from rankloom_kernels.backends import accepts, choose
from rankloom_kernels.lowrank import accumulator
from rankloom_kernels.masks import cutoff, drop_, kept
from rankloom_kernels.separate import delta_rows, refuses_separate
from rankloom_kernels.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankloom_kernels.backends import Backend
    from rankloom_kernels.terms import Term


@dataclass(frozen=True, slots=True)
class Keep:
    """Which elements of each delta stay.

    Attributes:
        bounds: for each delta the least magnitude that stays; or, if it ``drops``, the probability
            with which an element stays, above 0 and at most 1. What stays is divided by it.
        keys: for each delta that drops its stream, from
            :func:`rankloom_kernels.masks.stream_key`; empty if magnitudes decide.
    """

    bounds: tuple[float, ...]
    keys: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.keys and len(self.keys) != len(self.bounds):
            message = f"{len(self.keys)} keys for {len(self.bounds)} deltas"
            raise ValueError(message)

    @property
    def drops(self) -> bool:
        """Whether chance decides, and not magnitude."""
        return bool(self.keys)

    @property
    def streams(self) -> list[tuple[int, int]]:
        """(key, number below which an element stays) of each delta."""
        if not self.drops:
            return [(0, 0)] * len(self.bounds)
        return [(key, cutoff(rate)) for key, rate in zip(self.keys, self.bounds, strict=True)]


@dataclass(frozen=True, slots=True)
class Election:
    """How what stays of several deltas becomes one.

    ``factor · Σ wₙ·Δₙ / Σ dₙ`` over those n whose vote has the elected sign; 0 where none has it.
    Where the vote is even the sign is plus. A 0 does not vote.

    Attributes:
        weights: one for each delta.
        sign_election: whether deltas vote with wₙ·Δₙ (``weighted``), with Δₙ (``unweighted``), or
            there is no vote and all count (``none``).
        vote: whether their ``total`` decides or the ``count`` of signs.
        divide_by: d is the ``weights``, 1 (``count``), or there is no division (``none``).
        factor: what mergekit calls lambda.
    """

    weights: tuple[float, ...]
    sign_election: Literal["weighted", "unweighted", "none"] = "weighted"
    vote: Literal["total", "count"] = "total"
    divide_by: Literal["weights", "count", "none"] = "weights"
    factor: float = 1.0

    def __post_init__(self) -> None:
        if self.divide_by == "weights" and min(self.weights, default=0) < 0:
            message = f"weights {self.weights} cannot divide: some are negative"
            raise ValueError(message)
        if self.sign_election == "none" and self.divide_by != "none":
            message = "nothing is elected, so there is nothing to divide by"
            raise ValueError(message)

    @property
    def shares(self) -> tuple[float, ...]:
        """What each delta adds to the divisor where it agrees."""
        return self.weights if self.divide_by == "weights" else (1.0,) * len(self.weights)


@torch.no_grad()
def elect_merge_(
    weight: torch.Tensor,
    terms: Sequence[Term],
    keep: Keep,
    election: Election,
    *,
    start: int = 0,
    out: torch.Tensor | None = None,
    backend: Backend | None = None,
) -> torch.Tensor:
    """Add to a weight what an election makes of several deltas; each element is rounded once.

    Deltas are computed in float32 where they are needed and never stored as a whole: one tile of
    each on torch, none on Triton.

    Args:
        weight: (rows, in), rows ``start`` and following of a tensor; float32, float16 or bfloat16.
        terms: for these rows, the deltas ``coefficient · b @ a``.
        keep: which elements of each stay.
        election: how they become one.
        start: number of the first row, which masks depend on.
        out: where to write, of the same shape and any of these dtypes; default: into ``weight``.
        backend: default: Triton on an NVIDIA GPU where it can, else torch.

    Returns:
        ``out``.

    Raises:
        ValueError: shapes or numbers differ.
        TypeError: a dtype is none of the three.
        BackendError: the backend that was asked for cannot do it; says why.
    """
    target = weight if out is None else out
    _check(weight, target, terms, keep, election)

    def refuses() -> str | None:
        if weight.stride(-1) != 1 or target.stride(-1) != 1:
            return "its kernel needs rows that are contiguous"
        return refuses_separate(terms, weight.device, asked=backend is not None)

    if choose(backend, {"triton": refuses, "torch": accepts}) == "triton":
        from rankloom_kernels.gpu.deltas import deltas
        from rankloom_kernels.gpu.elect import merge_elected

        merge_elected(weight, target, deltas(terms), keep, election, start)
        return target
    height = Workspace().rows(weight.shape[1] * len(terms), torch.float32)
    for first in range(0, weight.shape[0], height):
        rows = slice(first, first + height)
        stack = torch.stack([delta_rows(term, first, first + height) for term in terms])
        for values, bound, (key, _) in zip(stack, keep.bounds, keep.streams, strict=True):
            _sift_(values, bound, key if keep.drops else None, start + first)
        target[rows].copy_(weight[rows].float() + elected(stack, election))
    return target


def _check(
    weight: torch.Tensor,
    target: torch.Tensor,
    terms: Sequence[Term],
    keep: Keep,
    election: Election,
) -> None:
    if accumulator(weight.dtype, target.dtype) == torch.float64:
        message = "deltas are compared in float32, and a tensor is torch.float64"
        raise TypeError(message)
    shapes = {tuple(weight.shape), tuple(target.shape), *(term.shape for term in terms)}
    if len(shapes) != 1:
        message = f"tensors of one merge need one shape, got {sorted(shapes)}"
        raise ValueError(message)
    if not len(terms) == len(keep.bounds) == len(election.weights) > 0:
        counts = (len(terms), len(keep.bounds), len(election.weights))
        message = f"{counts} terms, bounds and weights: numbers differ, or there are none"
        raise ValueError(message)


def _sift_(values: torch.Tensor, bound: float, key: int | None, first: int) -> None:
    if key is None:
        values.mul_(values.abs() >= bound)
    else:
        drop_(values, key, first * values.shape[1], cutoff(bound)).div_(bound)


def elected(stack: torch.Tensor, election: Election) -> torch.Tensor:
    """Return what an election makes of deltas, as the formula of :class:`Election` reads.

    Args:
        stack: (N, rows, in), of any dtype.
        election: how; N weights.

    Returns:
        (rows, in).
    """
    weights = stack.new_tensor(election.weights)[:, None, None]
    values = stack * weights
    if election.sign_election == "none":
        return values.sum(0) * election.factor
    votes = values if election.sign_election == "weighted" else stack
    cast = votes.sign() if election.vote == "count" else votes
    sign = cast.sum(0).ge(0).to(stack.dtype).mul_(2).sub_(1)
    agrees = votes * sign > 0
    total = (values * agrees).sum(0)
    if election.divide_by != "none":
        shares = (stack.new_tensor(election.shares)[:, None, None] * agrees).sum(0)
        total /= torch.where(shares > 0, shares, 1.0)
    return total * election.factor


def elect_reference(
    weight: torch.Tensor,
    terms: Sequence[Term],
    keep: Keep,
    election: Election,
    *,
    start: int = 0,
) -> torch.Tensor:
    """Return the result in float64, written as the formula reads; it materialises every delta."""
    stack = torch.stack([c * (b.double() @ a.double()) for b, a, c in terms])
    for values, bound, (key, _) in zip(stack, keep.bounds, keep.streams, strict=True):
        if keep.drops:
            mask = kept(key, start * values.shape[1], values.numel(), bound, values.device)
            values.mul_(mask.view(values.shape)).div_(bound)
        else:
            values.mul_(values.abs() >= bound)
    return weight.double() + elected(stack, election)
