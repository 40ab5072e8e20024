"""Turns a formula into something that can be added to any rows of its base tensor.

One function for each kind of change; a new kind is one more function here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from rankloom.change.read import read_finite
from rankloom.errors import AdapterError
from rankloom_kernels import Folded, Term, fold, merge_

if TYPE_CHECKING:
    from rankloom.adapter.change import LowRank
    from rankloom.change.formula import Formula, Weighted
    from rankloom_kernels import Workspace


@dataclass(frozen=True, slots=True)
class Loaded:
    """A formula whose factors are in memory, oriented as its base tensor is stored.

    Attributes:
        delta: the folded sum, in the dtype that it is accumulated in.
    """

    delta: Folded

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the base tensor as stored."""
        return self.delta.shape

    def merge_(
        self,
        weight: torch.Tensor,
        *,
        start: int = 0,
        out: torch.Tensor | None = None,
        workspace: Workspace | None = None,
    ) -> torch.Tensor:
        """Add the delta to rows of the base tensor, rounding each element once.

        Args:
            weight: rows ``start``, ``start + 1``, … of the tensor as stored.
            start: number of the first row.
            out: where to write; default: into ``weight``.
            workspace: keeps the accumulator between calls.

        Returns:
            ``out``.
        """
        rows = self.delta.rows(start, start + weight.shape[0])
        return merge_(weight, rows, out=out, workspace=workspace)


def load(
    formula: Formula,
    *,
    transposed: bool = False,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Loaded:
    """Read a formula's factors.

    Args:
        formula: what will be added.
        transposed: the base tensor is stored as (in, out), so the delta is added transposed.
        dtype: float32 or float64; what the sum is accumulated in.
        device: where the base tensor is.

    Raises:
        AdapterError: a factor cannot be read, holds NaN or infinity, or overflows with its weight.
    """
    terms = [low_rank(item, dtype, device) for item in formula.terms]
    delta = fold([term.transposed() for term in terms] if transposed else terms, dtype)
    if not torch.isfinite(delta.a if transposed else delta.b).all():
        coefficients = [item.weight * item.change.scale for item in formula.terms]
        message = f"NUM004 weight times scale {coefficients} overflows {dtype} in a factor"
        raise AdapterError(message, hint="use a smaller weight")
    return Loaded(delta)


def low_rank(
    item: Weighted, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Term:
    """Return weight · scale · B·A as a term; the coefficient is multiplied in float64."""
    change: LowRank = item.change
    b, a = (read_finite(entry).to(device, dtype) for entry in (change.b, change.a))
    return Term(b, a, item.weight * change.scale)
