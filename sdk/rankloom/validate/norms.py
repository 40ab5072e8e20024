"""Deltas that stand out among those of one adapter: advice, from two small matrices each."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rankloom.adapter.change import LowRank
from rankloom.validate.rules import RULES

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import numpy.typing as npt

    from rankloom.adapter.reader import Adapter
    from rankloom.finding import Finding

_FAR = 1000.0
"""How many times the median a norm must be; layers of sound adapters differ by ten to fifty."""

_FEW = 4
"""Of fewer deltas nothing stands out."""

_ONE, _MANY, _RANK = 0.999, 0.5, 8
"""Share of the energy in the first direction: nearly all here, at most half elsewhere."""

_STEPS = 30


@dataclass(frozen=True, slots=True)
class _Size:
    name: str
    norm: float
    share: float
    rank: int


def outliers(adapter: Adapter) -> Iterator[Finding]:
    """NUM002: norms and spectra of the deltas are of one sort."""
    sizes = [size for size in _sizes(adapter) if size.norm > 0]
    if len(sizes) < _FEW:
        return
    norm = statistics.median(size.norm for size in sizes)
    share = statistics.median(size.share for size in sizes)
    for size in sizes:
        if size.norm > _FAR * norm:
            message = f"the delta of {size.name} has the norm {size.norm:.3g}, others {norm:.3g}"
            yield RULES["NUM002"].finding(message, where=size.name)
        if size.share > _ONE and share < _MANY and size.rank >= _RANK:
            message = f"the delta of {size.name} has one direction, others have many"
            yield RULES["NUM002"].finding(message, where=size.name)


def _sizes(adapter: Adapter) -> Iterator[_Size]:
    import numpy as np

    from rankloom.tensorfile.values import load_numpy

    for target in adapter.targets:
        change = target.change
        if not isinstance(change, LowRank):
            continue
        with np.errstate(invalid="ignore"):  # signalling NaNs; NUM001 speaks of all that there are
            a = load_numpy(change.a).astype(np.float64)
            b = load_numpy(change.b).astype(np.float64)
        if np.isfinite(a).all() and np.isfinite(b).all():
            norm, share = _measure(a @ a.T, b.T @ b)
            yield _Size(target.name, abs(change.scale) * norm, share, change.rank)


def _measure(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return ‖BA‖ (Frobenius) and the share of its square in the first singular direction.

    ‖BA‖² = tr(BᵀB·AAᵀ), whose eigenvalues are the squared singular values; the largest is found
    by power iteration.

    Args:
        a: AAᵀ (rank, rank).
        b: BᵀB (rank, rank).
    """
    import numpy as np

    total = float((a * b).sum())
    if not total > 0:
        return 0.0, 0.0
    product: npt.NDArray[Any] = b @ a / total
    vector = np.ones(len(product))
    largest = 0.0
    for _ in range(_STEPS):
        vector = product @ vector
        largest = float(np.linalg.norm(vector))
        if not largest > 0:
            return total**0.5, 0.0
        vector /= largest
    return total**0.5, largest
