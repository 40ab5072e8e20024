"""Which rows of a stored tensor hold which part of a parameter, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rankloom.tensorfile.index import axis_of, spans, within

if TYPE_CHECKING:
    from rankloom.apply.placed import Contribution
    from rankloom.tensorfile.index import Spans


@dataclass(frozen=True, slots=True)
class Slab:
    """Some rows of a stored tensor, and what they hold of a parameter.

    Attributes:
        region: index of the slab, whose first axis counts from the slab's first row.
        part: index of the parameter.
        transposed: the last two axes are the other way round in the region.
    """

    region: Spans
    part: Spans
    transposed: bool


def narrow(one: Contribution, start: int, stop: int) -> Slab | None:
    """Cut a contribution down to the rows from ``start`` to ``stop`` of the stored tensor.

    Returns:
        ``None`` if none of them is concerned.
    """
    piece = one.piece
    region = spans(piece.region, piece.entry.shape)
    part = spans(piece.part, one.shape)
    if not region:
        return Slab(region, part, transposed=False)
    first, rest = region[0], region[1:]
    if isinstance(first, int):
        inside = start <= first < stop
        return Slab((first - start, *rest), part, piece.transposed) if inside else None
    low, high = within(first, start, stop)
    if low == high:
        return None
    rows = range(first[low] - start, first[high - 1] - start + 1, first.step)
    axis = _axis_of_rows(region, part, transposed=piece.transposed)
    span = part[axis]
    assert isinstance(span, range)  # noqa: S101 - axis_of finds these only
    return Slab((rows, *rest), (*part[:axis], span[low:high], *part[axis + 1 :]), piece.transposed)


def _axis_of_rows(region: Spans, part: Spans, *, transposed: bool) -> int:
    """Return the axis of the parameter along which the first axis of the region runs."""
    axes = sum(isinstance(span, range) for span in region)
    return axis_of(part, 1 if transposed and axes == 2 else 0)
