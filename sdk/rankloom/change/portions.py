"""Parts of a delta that is computed by rows, and no more of it than they need."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from rankloom.tensorfile.index import sizes

if TYPE_CHECKING:
    from rankloom.change.formula import ByRows, Portion
    from rankloom.tensorfile.index import Spans


class Portions:
    """One change, of which the last matrix asked for is kept open.

    Args:
        change: what is computed by rows.
    """

    def __init__(self, change: ByRows) -> None:
        self._change = change
        self._last: tuple[int | None, Portion] | None = None
        self._whole: tuple[int | None, torch.Tensor] | None = None

    def part(self, part: Spans) -> torch.Tensor:
        """Return a part of the delta, float32.

        Args:
            part: of (out, in) or (experts, out, in), every axis spelled out.
        """
        if len(part) < 3:
            return self._matrix(None, part)
        expert = part[0]
        if isinstance(expert, int):
            return self._matrix(expert, part[1:])
        found = [self._matrix(one, part[1:]) for one in expert]
        return torch.stack(found) if found else torch.zeros(sizes(part))

    def _matrix(self, expert: int | None, part: Spans) -> torch.Tensor:
        rows, columns = (range(n, n + 1) if isinstance(n, int) else n for n in part)
        if not rows or not columns:
            return torch.zeros(sizes(part))
        low, high = min(rows), max(rows) + 1
        if len(columns) == self._change.shape[-1]:
            found = self._open(expert)(low, high)
        else:  # stored the other way round: each slab of it needs some columns of all rows
            found = self._all(expert)[low:high]
        return found[rows.start - low :: rows.step][:, columns].view(sizes(part))

    def _open(self, expert: int | None) -> Portion:
        if self._last is None or self._last[0] != expert:
            self._last = None  # before the next one needs memory
            self._last = expert, self._change.open(expert)
        return self._last[1]

    def _all(self, expert: int | None) -> torch.Tensor:
        if self._whole is None or self._whole[0] != expert:
            self._whole = expert, self._open(expert)(0, self._change.shape[-2])
        return self._whole[1]
