"""Turns a sum of products of factors into something that can be added to rows of a base tensor.

What else a formula can hold is evaluated in :mod:`rankloom.change.dense`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from rankloom.adapter.change import ExpertLowRank, LowRank
from rankloom.change.formula import Product
from rankloom.change.read import all_finite, read_finite
from rankloom.errors import AdapterError
from rankloom_kernels import Folded, Term, fold, merge_

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankloom.change.formula import Formula, Summand
    from rankloom.tensorfile.header import TensorEntry
    from rankloom.tensorfile.index import Index
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
    part: Index = (),
    transposed: bool = False,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Loaded:
    """Read the factors of a formula whose every term is a product of two.

    Args:
        formula: what will be added.
        part: the part of the parameter that is wanted, a matrix.
        transposed: the base tensor is stored as (in, out), so the delta is added transposed.
        dtype: float32 or float64; what the sum is accumulated in.
        device: where the base tensor is.

    Raises:
        AdapterError: a factor cannot be read, holds NaN or infinity, or overflows with its weight.
    """
    return load_all([(formula, part)], transposed=transposed, dtype=dtype, device=device)


def load_all(
    items: Sequence[tuple[Formula, Index]],
    *,
    transposed: bool = False,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    recent: Recent | None = None,
    for_bfloat16: bool = False,
) -> Loaded:
    """Do what :func:`load` does for several formulas, each with the part that is wanted of it.

    Args:
        items: formulas and parts.
        transposed: as for :func:`load`.
        dtype: likewise.
        device: likewise.
        recent: keeps what the next call mostly needs again.
        for_bfloat16: the base tensor is bfloat16, and so is what it becomes.
    """
    terms = []
    for formula, part in items:
        for item in formula.terms:
            b, a, scale = factors(item.change, part, recent)
            terms.append(Term(b.to(device, dtype), a.to(device, dtype), item.weight * scale))
    return join(terms, transposed=transposed, dtype=dtype, for_bfloat16=for_bfloat16)


def join(
    terms: Sequence[Term],
    *,
    transposed: bool = False,
    dtype: torch.dtype = torch.float32,
    for_bfloat16: bool = False,
) -> Loaded:
    """Return the sum of terms as one product; see :func:`load`.

    Raises:
        AdapterError: a factor overflows with its coefficient.
    """
    turned = [term.transposed() for term in terms] if transposed else terms
    delta = fold(turned, dtype, for_bfloat16=for_bfloat16)
    if not all_finite(delta.a if transposed else delta.b):
        coefficients = [term.coefficient for term in terms]
        message = f"NUM004 weight times scale {coefficients} overflows {dtype} in a factor"
        raise AdapterError(message, hint="use a smaller weight")
    return Loaded(delta)


class Recent:
    """The factors B of all experts that were read last.

    A checkpoint that stores each expert by itself asks for a few columns of the same B once for
    each expert; without this all of it would be read as often.
    """

    def __init__(self) -> None:
        self._held: dict[TensorEntry, torch.Tensor] = {}

    def of(self, change: ExpertLowRank) -> torch.Tensor:
        """Return B of all experts, (experts, out, rank)."""
        if change.b not in self._held:
            while len(self._held) >= _HELD:
                del self._held[next(iter(self._held))]
            b = read_finite(change.b).view(change.b.shape[0], change.rank, change.experts)
            self._held[change.b] = b.permute(2, 0, 1).contiguous()
        return self._held[change.b]


_HELD = 4
"""Experts have two or three parameters, whose stored tensors take turns in a file."""


def factors(change: Summand, part: Index = (), recent: Recent | None = None) -> Term:
    """Return scale · B·A of a part of the parameter as a term, the factors in their own dtype.

    Args:
        change: two factors, or two for each expert, in a file or in memory.
        part: of (out, in), or of (experts, out, in): then the first index is an expert's number.
        recent: keeps what the next call mostly needs again.
    """
    rest: Sequence[int | slice]
    if isinstance(change, Product):
        axes = change.b.ndim - 2
        b, a, rest = change.b[part[:axes]], change.a[part[:axes]], part[axes:]
    elif isinstance(change, ExpertLowRank):
        expert, *rest = part
        assert isinstance(expert, int)  # noqa: S101 - a matrix was asked for
        a = read_finite(change.a, range(expert * change.rank, (expert + 1) * change.rank))
        b = (recent or Recent()).of(change)[expert]
    else:
        assert isinstance(change, LowRank)  # noqa: S101 - Sum.is_low_rank was asked
        rest = part
        b, a = read_finite(change.b), read_finite(change.a)
        if change.transposed:
            b, a = a.T, b.T
    rows, columns = (*rest, slice(None), slice(None))[:2]
    return Term(b[rows], a[:, columns], getattr(change, "scale", 1.0))
