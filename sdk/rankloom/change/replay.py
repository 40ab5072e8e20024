"""Sampled tiles of a result, computed again in float64 and compared with what was written."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch

from rankloom.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankloom.tensorfile.index import Spans

ROWS, COLUMNS = 4, 64
"""Size of a tile: small beside the factors that have to be read for it."""


def sample(seed: str, name: str, covered: Spans) -> Spans:
    """Choose a tile of a region: the same one for the same seed.

    Args:
        seed: digest of the lock.
        name: of the tensor; each has a tile elsewhere.
        covered: the region; of its last axis up to :data:`COLUMNS` are taken, of the one before up
            to :data:`ROWS`, of any other one.
    """
    last = len(covered) - 1
    most = [{0: COLUMNS, 1: ROWS}.get(last - axis, 1) for axis in range(len(covered))]
    return tuple(
        span if isinstance(span, int) else _some(span, count, f"{seed}/{name}/{axis}")
        for axis, (span, count) in enumerate(zip(covered, most, strict=True))
    )


def _some(span: range, count: int, key: str) -> range:
    places = max(1, len(span) - count + 1)
    start = draw(key) % places
    return span[start : start + count]


def draw(key: str) -> int:
    """Return a number of 64 bits that looks random, the same for the same key."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8])


def check_tile(
    found: torch.Tensor, expected: torch.Tensor, allowed: torch.Tensor, name: str, tile: Spans
) -> None:
    """Demand that what was written is what the adapters give.

    Args:
        found: the written values.
        expected: the replayed ones, float64.
        allowed: how far they may be apart, float64.
        name: of the tensor.
        tile: which part of it this is.

    Raises:
        IntegrityError: naming the first element that is another.
    """
    apart = (found.double() - expected).abs()
    # A base may hold infinities and NaN, of which nothing is near, not even themselves.
    same = (found == expected.to(found.dtype)) | (found.isnan() & expected.isnan())
    wrong = ~(same | (apart <= allowed))
    if not wrong.any():
        return
    first = tuple(torch.nonzero(wrong)[0].tolist())
    place = ", ".join(map(str, _absolute(first, tile)))
    message = f"MRG009 {name}[{place}] was written as {float(found[first]):.9g}, but the adapters"
    message += f" give {float(expected[first]):.9g}"
    hint = "nothing was kept; memory or disk may be faulty, else this is a fault of rankloom"
    raise IntegrityError(message, hint=hint)


def _absolute(local: Sequence[int], tile: Spans) -> list[int]:
    left = iter(local)
    return [span if isinstance(span, int) else span[next(left)] for span in tile]


def half_unit(expected: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return how far one rounding to nearest may move values: half a unit in their last place.

    Below the smallest normal number the units stay as large as there.
    """
    limits = torch.finfo(dtype)
    return limits.eps / 2 * torch.clamp(expected.abs(), min=limits.smallest_normal)
