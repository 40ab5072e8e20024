"""Factors of a small part of a parameter, and hardly a byte more of their files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.adapter.change import ExpertLowRank, LowRank
from rankloom.change.formula import Product
from rankloom.change.read import read_box
from rankloom_kernels import Term

if TYPE_CHECKING:
    import torch

    from rankloom.tensorfile.header import TensorEntry
    from rankloom.tensorfile.index import Spans


def part_factors(change: LowRank | ExpertLowRank | Product, part: Spans) -> Term:
    """Return scale · B·A of a small part as a term, the factors in their own dtype.

    Args:
        change: two factors, or two for each expert, in a file or in memory.
        part: rows and columns, behind the number of an expert where there are experts.
    """
    rows, columns = (range(n, n + 1) if isinstance(n, int) else n for n in part[-2:])
    if isinstance(change, Product):
        b, a = change.b[part[:-2]], change.a[part[:-2]]
        return Term(b[_slice(rows)], a[:, _slice(columns)], 1.0)
    if isinstance(change, ExpertLowRank):
        expert, rank = part[0], change.rank
        assert isinstance(expert, int)  # noqa: S101 - a matrix was asked for
        b = _ranged(change.b, rows, range(change.b.shape[1]))[:, expert :: change.experts]
        a = _ranged(change.a, range(expert * rank, (expert + 1) * rank), columns)
        return Term(b, a, change.scale)
    ranks = range(change.rank)
    if change.transposed:
        b, a = _ranged(change.a, ranks, rows).T, _ranged(change.b, columns, ranks).T
    else:
        b, a = _ranged(change.b, rows, ranks), _ranged(change.a, ranks, columns)
    return Term(b, a, change.scale)


def _ranged(entry: TensorEntry, rows: range, columns: range) -> torch.Tensor:
    """Read rows and columns of a matrix; of a range with steps, what lies between too."""
    spans = [range(span[0], span[-1] + 1) for span in (rows, columns)]
    return read_box(entry, spans)[:: rows.step, :: columns.step]


def _slice(span: range) -> slice:
    return slice(span.start, span.stop, span.step)
