"""Factors that stay in memory, so that another trial is only another weight."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from rankloom.adapter.change import ExpertLowRank, LowRank
from rankloom.change.evaluate import Recent, factors
from rankloom.change.formula import Product, Sum, Weighted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankloom.change.formula import TargetChange


class Held:
    """The factors of every change that was asked for, as read from its file once.

    A target that something without factors changes is passed on as it is and read each time.
    """

    def __init__(self) -> None:
        self._held: dict[LowRank | ExpertLowRank, Product] = {}

    def hold(self, changes: Sequence[TargetChange]) -> tuple[TargetChange, ...]:
        """Return the same changes with their factors in memory; they give the same bits.

        Raises:
            AdapterError: a factor cannot be read, or holds NaN or infinity.
        """
        return tuple(self._target(change) for change in changes)

    def _target(self, change: TargetChange) -> TargetChange:
        terms = change.formula.terms
        if not all(isinstance(term.change, LowRank | ExpertLowRank) for term in terms):
            return change
        # What the base's names are matched with is the change as the adapter has it.
        origin = change.target.change
        return replace(change, formula=Sum(tuple(map(self._term, terms))), origin=origin)

    def _term(self, term: Weighted) -> Weighted:
        change = term.change
        assert isinstance(change, LowRank | ExpertLowRank)  # noqa: S101 - it was asked
        if change not in self._held:
            self._held[change] = _read(change)
        return Weighted(term.weight * change.scale, self._held[change])


def _read(change: LowRank | ExpertLowRank) -> Product:
    if isinstance(change, LowRank):
        b, a, _ = factors(change)
        return Product(*_widened(b, a))
    recent = Recent()
    terms = [factors(change, (expert,), recent) for expert in range(change.experts)]
    b, a = (torch.stack([getattr(term, name) for term in terms]) for name in "ba")
    return Product(*_widened(b, a))


def _widened(b: torch.Tensor, a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return both in one dtype that loses nothing and is a product's."""
    wide = torch.float64 in (b.dtype, a.dtype)
    dtype = torch.float64 if wide else torch.float32
    return b.to(dtype), a.to(dtype)
