"""Which part of a parameter some rows, or a box, of a stored tensor hold, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rankloom.tensorfile.index import axis_of, spans, within

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankloom.apply.placed import Contribution
    from rankloom.tensorfile.index import Spans


@dataclass(frozen=True, slots=True)
class Slab:
    """Some rows, or a box, of a stored tensor, and what they hold of a parameter.

    Attributes:
        region: index of the slab, whose axes count from where the box begins.
        part: index of the parameter.
        transposed: the last two axes are the other way round in the region.
    """

    region: Spans
    part: Spans
    transposed: bool


def box_of_rows(shape: Sequence[int], start: int, stop: int) -> tuple[range, ...]:
    """Return some rows of a tensor's first axis and all of the others."""
    return (range(start, stop), *(range(size) for size in shape[1:]))[: len(shape)]


def cut(one: Contribution, box: Sequence[range]) -> Slab | None:
    """Cut a contribution down to a box of the stored tensor, a range without steps on each axis.

    Returns:
        ``None`` if nothing in it is concerned.
    """
    piece = one.piece
    region = list(spans(piece.region, piece.entry.shape))
    part = list(spans(piece.part, one.shape))
    axes = iter(_axes(region, tuple(part), transposed=piece.transposed))
    for number, (span, bounds) in enumerate(zip(region, box, strict=True)):
        if isinstance(span, int):
            if span not in bounds:
                return None
            region[number] = span - bounds.start
            continue
        low, high = within(span, bounds.start, bounds.stop)
        if low == high:
            return None
        first, last = span[low] - bounds.start, span[high - 1] - bounds.start
        region[number] = range(first, last + 1, span.step)
        axis = next(axes)
        along = part[axis]
        assert isinstance(along, range)  # noqa: S101 - axis_of finds these only
        part[axis] = along[low:high]
    return Slab(tuple(region), tuple(part), piece.transposed)


def _axes(region: Sequence[int | range], part: Spans, *, transposed: bool) -> list[int]:
    """Return, for each axis of a region that is no index, the parameter's axis along it."""
    count = sum(isinstance(span, range) for span in region)
    axes = [axis_of(part, local) for local in range(count)]
    return [*axes[:-2], axes[-1], axes[-2]] if transposed and count > 1 else axes
