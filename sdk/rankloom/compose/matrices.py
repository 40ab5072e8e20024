"""Deltas of one planned target as factors, in the order of the recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from rankloom.adapter.change import ExpertLowRank, LowRank
from rankloom.change.evaluate import Recent, factors
from rankloom.compose.factors.value import Factors, join

if TYPE_CHECKING:
    from rankloom.recipe.plan import PlannedTarget


class Matrices:
    """The matrices of one target: one, or one for each expert.

    Args:
        target: all of whose changes are kept as factors.
    """

    def __init__(self, target: PlannedTarget) -> None:
        self._target, self._recent = target, Recent()
        shape = target.shape
        assert shape is not None  # noqa: S101 - factors know their shape
        self.shape = shape

    @property
    def experts(self) -> tuple[int | None, ...]:
        """Numbers of the matrices; ``None``: the parameter is one itself."""
        return tuple(range(self.shape[0])) if len(self.shape) == 3 else (None,)

    @property
    def is_embedding(self) -> bool:
        """Whether PEFT keeps it as an embedding's factors."""
        changes = [part.change for part in self._target.parts]
        return all(isinstance(change, LowRank) and change.transposed for change in changes)

    @property
    def is_wide(self) -> bool:
        """Whether an adapter keeps it in float64."""
        changes = [part.change for part in self._target.parts]
        return any(
            change.b.dtype == "F64"
            for change in changes
            if isinstance(change, LowRank | ExpertLowRank)
        )

    def of(self, expert: int | None) -> tuple[Factors, ...]:
        """Return the delta of every adapter of the recipe, scale folded in, without its weight.

        An adapter that leaves the target alone, or has weight 0, has factors of rank 0.

        Raises:
            AdapterError: a factor cannot be read, or holds NaN or infinity.
        """
        index = () if expert is None else (expert,)
        found: list[list[Factors]] = [[] for _ in self._target.weights]
        for part in self._target.parts:
            b, a, scale = factors(part.change, index, self._recent)
            found[part.part].append(Factors(b.double() * scale, a.double()))
        out, into = self.shape[-2:]
        nothing = Factors(torch.zeros(out, 0).double(), torch.zeros(0, into).double())
        return tuple(join(same) if same else nothing for same in found)
