"""Factors for a delta that has none, from its rows alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch

from rankloom.recipe.rank import check_rank
from rankloom_kernels.masks import kept, stream_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    Rows: TypeAlias = Callable[[int, int], torch.Tensor]

_TILE = 1 << 20
"""Elements asked for at a time."""


class Approximated(NamedTuple):
    """A product that stands for a delta.

    Attributes:
        b: (out, rank) float32; the largest element of each column is positive.
        a: (rank, in) float32.
        residual: ``‖ΔW − b·a‖ / ‖ΔW‖`` (Frobenius), measured on these very factors; 0 of ΔW = 0.
        norm: ‖ΔW‖.
    """

    b: torch.Tensor
    a: torch.Tensor
    residual: float
    norm: float


@torch.no_grad()
def to_factors(
    rows: Rows,
    shape: tuple[int, int],
    *,
    rank: int,
    oversample: int = 16,
    passes: int = 2,
    seed: int = 0,
) -> Approximated:
    """Approximate a delta by factors, reading it ``passes + 2`` times and holding a few rows.

    A randomised range finder (Halko, Martinsson and Tropp, *Finding Structure with Randomness*,
    2011, algorithms 4.4 and 5.1): a random ``P`` (in, rank + oversample) becomes a basis of the
    rows that matter by ``P ← orth(ΔWᵀ·ΔW·P)``, and the best product of rank ``rank`` within
    ``ΔW·P·Pᵀ`` is taken. The residual comes near the smallest one possible, and says how near a
    product of this rank comes to ΔW at all.

    Args:
        rows: gives rows ``start`` to ``stop`` as (stop − start, in).
        shape: (out, in).
        rank: columns of b; of a smaller matrix, no more than it has rows or columns.
        oversample: columns that ``P`` has besides.
        passes: how often ``P`` is improved; at least 1.
        seed: of ``P``, which is the same on every machine.

    Raises:
        RefError: ``rank``, ``oversample`` or ``passes`` is no whole number of at least 1.
    """
    wide = min(check_rank(rank) + check_rank(oversample), *shape)
    basis = _random(shape[1], wide, seed)
    for _ in range(check_rank(passes)):
        basis = torch.linalg.qr(_squared(rows, shape, basis)).Q
    image, norm = _image(rows, shape, basis)
    q, r = torch.linalg.qr(image)
    u, values, vh = torch.linalg.svd(r)
    root = values[: min(rank, wide)].sqrt()
    b = q @ (u[:, : len(root)] * root)
    a = (root[:, None] * vh[: len(root)]) @ basis.T
    signs = torch.where(b.gather(0, b.abs().argmax(0, keepdim=True))[0] < 0, -1.0, 1.0)
    b, a = (b * signs).float(), (a * signs[:, None]).float()
    return Approximated(b, a, _distance(rows, shape, b, a) / norm if norm else 0.0, norm)


def _tiles(rows: Rows, shape: tuple[int, int]) -> Iterator[tuple[slice, torch.Tensor]]:
    height = 1 << max(0, (_TILE // max(1, shape[1])).bit_length() - 1)
    for start in range(0, shape[0], height):
        stop = min(start + height, shape[0])
        yield slice(start, stop), rows(start, stop).double().cpu()


def _random(into: int, wide: int, seed: int) -> torch.Tensor:
    """Return signs at random, (into, wide) float64."""
    key = stream_key(seed, "range finder", f"{into} x {wide}")
    return kept(key, 0, into * wide, 0.5).view(into, wide).double().mul_(2).sub_(1)


def _squared(rows: Rows, shape: tuple[int, int], basis: torch.Tensor) -> torch.Tensor:
    """Return ΔWᵀ·ΔW·P."""
    total = torch.zeros_like(basis)
    for _, tile in _tiles(rows, shape):
        total.addmm_(tile.T, tile @ basis)
    return total


def _image(rows: Rows, shape: tuple[int, int], basis: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Return ΔW·P and ‖ΔW‖."""
    image = basis.new_empty(shape[0], basis.shape[1])
    squares = []
    for place, tile in _tiles(rows, shape):
        image[place] = tile @ basis
        squares += tile.square().sum(1).tolist()
    return image, math.sqrt(math.fsum(squares))


def _distance(rows: Rows, shape: tuple[int, int], b: torch.Tensor, a: torch.Tensor) -> float:
    squares: list[float] = []
    for place, tile in _tiles(rows, shape):
        squares += tile.addmm_(b[place].double(), a.double(), alpha=-1).square_().sum(1).tolist()
    return math.sqrt(math.fsum(squares))
