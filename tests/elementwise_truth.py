"""Elementwise merging of dense deltas in float64, as the papers write it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from rankloom.compose.factors.value import Factors

if TYPE_CHECKING:
    from collections.abc import Sequence

CLOSE = 1e-6
"""Nearer than this, relatively, a float32 product may fall on the other side of a threshold."""


class Truth(NamedTuple):
    """A dense result and where a float32 computation may decide otherwise."""

    values: np.ndarray
    unsure: np.ndarray


def random_parts(
    shape: tuple[int, int], ranks: Sequence[int], seed: int, dtype: torch.dtype = torch.float64
) -> list[Factors]:
    generator = torch.Generator().manual_seed(seed)
    return [
        Factors(
            torch.randn(shape[0], rank, generator=generator, dtype=dtype) * 0.1,
            torch.randn(rank, shape[1], generator=generator, dtype=dtype) * (0.1 + number / 10),
        )
        for number, rank in enumerate(ranks)
    ]


def dense(parts: Sequence[Factors]) -> np.ndarray:
    """Return all deltas, (N, out, in) float64."""
    return np.stack([(part.b.double() @ part.a.double()).numpy() for part in parts])


def reach(parts: Sequence[Factors]) -> np.ndarray:
    """Return Σ |b|·|a| over all deltas, to which errors of float32 products are in proportion."""
    return np.sum([(part.b.double().abs() @ part.a.double().abs()).numpy() for part in parts], 0)


def kth(values: np.ndarray, count: int) -> float:
    return float(np.sort(values, axis=None)[-count])


def near(values: np.ndarray, limit: float) -> np.ndarray:
    """Return what is nearly as large as the limit, unless that is the limit's own element."""
    found = np.abs(values - limit) <= CLOSE * limit
    return found if found.sum() > 1 else np.zeros_like(found)


def trim(deltas: np.ndarray, densities: Sequence[float]) -> Truth:
    """Keep the k largest of each delta, and all that equal the smallest of them."""
    kept, unsure = np.zeros_like(deltas), np.zeros(deltas.shape[1:], dtype=bool)
    for number, (delta, density) in enumerate(zip(deltas, densities, strict=True)):
        count = max(1, int(density * delta.size))
        limit = kth(np.abs(delta), count)
        kept[number] = np.where(np.abs(delta) >= limit, delta, 0)
        if count < delta.size:
            unsure |= near(np.abs(delta), limit)
    return Truth(kept, unsure)


def crumbs(deltas: np.ndarray, density: float, gamma: float) -> Truth:
    """Sort each delta, cut off the top and the bottom."""
    kept, unsure = np.zeros_like(deltas), np.zeros(deltas.shape[1:], dtype=bool)
    for number, delta in enumerate(deltas):
        size = np.abs(delta)
        count = int(density * delta.size)
        top = min(int(gamma * delta.size), delta.size - count)
        low = kth(size, top + count)
        stays = size >= low
        unsure |= near(size, low)
        if top:
            high = kth(size, top)
            stays &= size < high
            unsure |= near(size, high)
        kept[number] = np.where(stays, delta, 0)
    return Truth(kept, unsure)


def elect(
    deltas: np.ndarray,
    weights: Sequence[float],
    *,
    sign_election: str = "weighted",
    vote: str = "total",
    divide_by: str = "weights",
    lambda_: float = 1.0,
) -> Truth:
    """Elect signs and merge what agrees, one element at a time over the adapters."""
    w = np.asarray(weights, dtype=np.float64)[:, None, None]
    votes = w * deltas if sign_election == "weighted" else deltas
    ballot = np.sign(votes) if vote == "count" else votes
    total = ballot.sum(0)
    sign = np.where(total >= 0, 1.0, -1.0)
    agrees = np.sign(votes) == sign
    result = np.where(agrees, w * deltas, 0).sum(0)
    if divide_by != "none":
        share = np.where(agrees, w if divide_by == "weights" else 1.0, 0.0).sum(0)
        result = np.divide(result, share, out=np.zeros_like(result), where=share != 0)
    mass = np.abs(ballot).sum(0)
    unsure = (np.abs(total) <= CLOSE * mass) & (mass > 0) & (vote == "total")
    return Truth(lambda_ * result, unsure)


def add(deltas: np.ndarray, weights: Sequence[float]) -> np.ndarray:
    return np.tensordot(np.asarray(weights, dtype=np.float64), deltas, axes=1)


def assert_equal(
    found: torch.Tensor, truth: Truth, scale: np.ndarray, *, unsure: float = 1e-5
) -> None:
    """Same zeros and signs, same values, wherever float32 leaves no doubt."""
    got = found.double().numpy()
    allowed = max(6, unsure * got.size)  # two pairs and a vote, of up to six thresholds
    assert truth.unsure.sum() <= allowed, f"{truth.unsure.sum()} elements are too near to tell"
    sure = ~truth.unsure
    wrong = (np.sign(got) != np.sign(truth.values)) & sure
    assert not wrong.any(), f"{wrong.sum()} elements are kept or signed otherwise"
    # The bound of the relative error of a float32 product and mean, and ten times what is usual.
    error = np.abs(got - truth.values)[sure] / scale[sure]
    assert error.max() <= 1e-6, error.max()
