"""Indices of tensors as values: what a region covers, and how two of them fit together."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

Index = tuple[int | slice, ...]
Spans = tuple[int | range, ...]
"""An index with every axis spelled out; an int drops its axis."""


def spans(index: Index, shape: Sequence[int]) -> Spans:
    """Spell an index out: ``()`` of (4, 6) is (range(4), range(6)).

    Raises:
        ValueError: it lies outside of the shape.
    """
    if len(index) > len(shape):
        message = f"index {index} has more axes than {tuple(shape)}"
        raise ValueError(message)
    full = (*index, *[slice(None)] * (len(shape) - len(index)))
    return tuple(_span(item, size) for item, size in zip(full, shape, strict=True))


def _span(item: int | slice, size: int) -> int | range:
    covered = [item] if isinstance(item, int) else range(size)[item]
    ends = covered[:1], covered[-1:]
    outside = isinstance(item, slice) and item.stop is not None and item.stop > size
    if outside or any(not 0 <= end < size for pair in ends for end in pair):
        message = f"index {item} lies outside of an axis of {size}"
        raise ValueError(message)
    return item if isinstance(item, int) else range(size)[item]


def sizes(covered: Spans) -> tuple[int, ...]:
    """Return the shape of what is covered."""
    return tuple(len(span) for span in covered if isinstance(span, range))


def index(covered: Spans) -> Index:
    """Return the spans as an index of a tensor."""
    return tuple(
        span if isinstance(span, int) else slice(span.start, span.stop, span.step)
        for span in covered
    )


def swapped(shape: Sequence[int]) -> tuple[int, ...]:
    """Return a shape with its last two axes exchanged (fewer than two: as it is)."""
    if len(shape) < 2:
        return tuple(shape)
    *front, rows, columns = shape
    return (*front, columns, rows)


def axis_of(covered: Spans, local: int) -> int:
    """Return the axis of the whole tensor that is axis ``local`` of what is covered."""
    return [axis for axis, span in enumerate(covered) if isinstance(span, range)][local]


def within(span: range, start: int, stop: int) -> tuple[int, int]:
    """Return first and last + 1 of the positions in ``span`` whose values lie in [start, stop)."""
    first = max(0, -(-(start - span.start) // span.step))
    last = max(0, -(-(stop - span.start) // span.step))
    return min(first, len(span)), min(last, len(span))
