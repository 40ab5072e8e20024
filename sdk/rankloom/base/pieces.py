"""The shape of a parameter that lies in pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.tensorfile.index import sizes, spans, swapped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankloom.base.model import Piece


def parameter_shape(pieces: Sequence[Piece]) -> tuple[int, ...]:
    """Return the shape of the parameter that some pieces make up."""
    extents = [_extent(piece) for piece in pieces]
    return tuple(max(axis) for axis in zip(*extents, strict=True))


def _extent(piece: Piece) -> tuple[int, ...]:
    """Return how far a piece reaches on each axis of the parameter."""
    local = local_shape(piece)
    if not piece.part:
        return local
    rest = list(local)
    extent = []
    for item in piece.part:
        if isinstance(item, int):
            extent.append(item + 1)
        else:
            size = rest.pop(0)
            extent.append(size if item.stop is None else item.stop)
    return (*extent, *rest)


def local_shape(piece: Piece) -> tuple[int, ...]:
    """Return the shape of a piece, its axes in the parameter's order."""
    stored = sizes(spans(piece.region, piece.entry.shape))
    return swapped(stored) if piece.transposed else stored
