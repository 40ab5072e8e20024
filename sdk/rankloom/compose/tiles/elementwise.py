"""A combined delta by rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from rankloom.errors import RefError

if TYPE_CHECKING:
    from rankloom.compose.tiles.consensus import Merge
    from rankloom.compose.tiles.deltas import Deltas
    from rankloom.compose.tiles.sift import Sift


@dataclass(frozen=True, slots=True, eq=False)
class Elementwise:
    """ΔW[i, j] as a function of Δ₁[i, j] … Δₙ[i, j], computed when it is asked for.

    A value without a state, so several threads may ask at once.

    Attributes:
        deltas: what is combined.
        sift: which elements of each stay.
        merge: how those become one.
    """

    deltas: Deltas
    sift: Sift
    merge: Merge

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        return self.deltas.shape

    @torch.no_grad()
    def rows(self, start: int, stop: int) -> torch.Tensor:
        """Return rows ``start`` to ``stop`` of ΔW, (stop − start, in) float32.

        A row has the same bits whichever rows it is asked for with, on any number of threads.

        Raises:
            RefError: there are no such rows.
        """
        if not 0 <= start <= stop <= self.shape[0]:
            message = f"a delta {self.shape} has no rows {start} to {stop}"
            raise RefError(message, hint=f"rows are 0 to {self.shape[0]}")
        size = (stop - start, self.shape[1])
        out = torch.empty(size, dtype=torch.float32, device=self.deltas.device)
        room = self.deltas.buffer(len(self.deltas))
        for first, last in self.deltas.blocks(start, stop):
            stack = self.deltas.stack_((first, last), room)
            self.sift(stack, first)
            out[first - start : last - start] = self.merge(stack)
        return out
