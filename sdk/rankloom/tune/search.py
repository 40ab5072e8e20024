"""Which weights to try next: a grid, or CMA-ES, which learns from the scores."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from rankloom.errors import BackendUnavailableError, RefError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankloom.tune.space import Space, Vector

TRIALS = 30
"""Compositions that a search scores if nothing else is said."""
MOST = 1000
"""Compositions of a grid that nobody limited."""
DIGITS = 3
"""Decimals of a weight: no dev set tells finer ones apart, and people read them."""


class Search(Protocol):
    """Proposes vectors one by one; the same scores give the same proposals."""

    def ask(self) -> Vector | None:
        """Return the next vector, or ``None`` when there is nothing more to try."""
        ...

    def tell(self, score: float) -> None:
        """Take the score of the vector that was asked for last."""
        ...


class Grid:
    """Every combination of some levels, the last number fastest."""

    def __init__(self, levels: Sequence[float], size: int) -> None:
        self._rest = itertools.product(tuple(map(float, levels)), repeat=size)

    def ask(self) -> Vector | None:
        """Return the next combination."""
        return next(self._rest, None)

    def tell(self, score: float) -> None:
        """Do nothing: a grid is fixed."""


class Evolution:
    """CMA-ES: Hansen 2016, *The CMA Evolution Strategy: A Tutorial*, arXiv 1604.00772.

    It starts in the middle of the bounds, after all weights at 1 were looked at.

    Args:
        size: length of a vector.
        bounds: lowest and highest weight.
        seed: of the samples.

    Raises:
        BackendUnavailableError: the package ``cmaes`` is not installed.
        RefError: the bounds enclose nothing.
    """

    def __init__(self, size: int, bounds: tuple[float, float], seed: int) -> None:
        try:
            import cmaes
            import numpy as np
        except ImportError as error:
            message = "the search for weights needs the package cmaes"
            hint = "pip install 'rankloom[tune]', or give a grid of weights"
            raise BackendUnavailableError(message, hint=hint) from error
        low, high = bounds
        if not low < high or not math.isfinite(high - low):
            message = f"MRG003 no weight lies between {low:g} and {high:g}"
            raise RefError(message, hint="give the lower bound first, e.g. 0,1.5")
        self._cma = cmaes.CMA(
            mean=np.full(size, (low + high) / 2),
            # A quarter of the way across: two steps from the middle to either bound.
            sigma=(high - low) / 4,
            bounds=np.array([bounds] * size, dtype=float),
            seed=seed,
        )
        self._first: Vector | None = (1.0,) * size if low <= 1 <= high else None
        self._is_first = False
        self._told: list[tuple[np.ndarray, float]] = []
        self._asked = np.full(size, np.nan)

    def ask(self) -> Vector | None:
        """Return a sample, or ``None`` when the search has converged."""
        self._is_first = self._first is not None
        if self._first is not None:
            found, self._first = self._first, None
            return found
        if not self._told and self._cma.should_stop():
            return None
        self._asked = self._cma.ask()
        return tuple(round(float(number), DIGITS) + 0.0 for number in self._asked)  # no -0

    def tell(self, score: float) -> None:
        """Take a score; a whole generation of them moves the search."""
        if self._is_first:
            return
        self._told.append((self._asked, -score))
        if len(self._told) == self._cma.population_size:
            self._cma.tell(self._told)
            self._told = []


@dataclass(frozen=True, slots=True)
class Settings:
    """How to search.

    Attributes:
        groups: texts in the names of targets that get a weight of their own.
        bands: into how many bands of layers each group is cut.
        grid: weights of which every combination is tried; empty: they are searched.
        bounds: lowest and highest weight of a search.
        trials: how many compositions are scored at most; ``None``: 30, or all of a grid.
        seed: of the search.
    """

    groups: tuple[str, ...] = ()
    bands: int = 1
    grid: tuple[float, ...] = ()
    bounds: tuple[float, float] = (0.0, 1.5)
    trials: int | None = None
    seed: int = 0

    def search(self, space: Space) -> tuple[Search, int]:
        """Return what proposes weights, and how many compositions to score at most.

        Raises:
            RefError: a grid has more combinations than there shall be trials, or a limit that is
                none.
        """
        size = len(space.names)
        if self.trials is not None and self.trials < 1:
            message = f"MRG003 {self.trials} trials find nothing"
            raise RefError(message, hint="20 to 50 are usual for two adapters")
        if not self.grid:
            return Evolution(size, self.bounds, self.seed), self.trials or TRIALS
        if not all(map(math.isfinite, self.grid)):
            message = f"MRG003 a grid of {', '.join(map(str, self.grid))}"
            raise RefError(message, hint="weights are finite numbers, negative ones too")
        count = len(self.grid) ** size
        if count > (self.trials or MOST):
            message = f"MRG003 {len(self.grid)} levels of {size} weights are {count} compositions"
            hint = "give fewer levels or groups, more trials, or no grid: then weights are searched"
            raise RefError(message, hint=hint)
        return Grid(self.grid, size), count
