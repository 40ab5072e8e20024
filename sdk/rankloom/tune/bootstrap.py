"""How sure a mean over examples is: the percentile bootstrap (Efron 1979)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankloom.tune.trial import Score

LEVEL = 0.95
ROUNDS = 2000


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and where it lies with 95 % confidence."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        size = max(map(abs, (self.mean, self.low, self.high)))
        mean, low, high = (shown(one, size) for one in (self.mean, self.low, self.high))
        return f"{mean} [{low}, {high}]"

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON value."""
        return {"mean": self.mean, "low": self.low, "high": self.high, "level": LEVEL}


def interval(values: Sequence[float], *, seed: int = 0) -> Interval:
    """Return the mean of independent examples and its percentile interval.

    Args:
        values: one for each example.
        seed: of the resampling.
    """
    import numpy as np

    found = np.asarray(values, dtype=np.float64)
    draw = np.random.default_rng(seed)
    size = len(found)
    means = np.array([found[draw.integers(0, size, size)].mean() for _ in range(ROUNDS)])
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(found.mean()), float(low), float(high))


def shown(number: float, size: float | None = None) -> str:
    """Return a score in as few characters as tell it: four decimals, or four digits.

    Args:
        number: the score.
        size: of the largest number that stands beside it.
    """
    size = abs(number) if size is None else size
    return f"{number:.4f}" if size == 0 or 1e-2 <= size < 1e3 else f"{number:.4g}"


def of_score(score: Score) -> Interval | None:
    """Return the interval of a score, or ``None`` if it is one number for all examples."""
    return interval(score.examples) if score.examples else None


def of_difference(one: Score, other: Score) -> Interval | None:
    """Return by how much the first is better, example by example.

    Both are drawn with the same examples, which takes out how hard each example is.
    """
    if not one.examples or not other.examples:
        return None
    pairs = zip(one.examples, other.examples, strict=True)
    return interval([first - second for first, second in pairs])
