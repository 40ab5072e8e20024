"""Splits what is added to a stored tensor into blocks of whole rows, each a product of factors.

A stored tensor counts as a matrix here: all axes but the last are rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from rankloom.tensorfile.index import index, spans

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rankloom.apply.placed import Contribution
    from rankloom.change.formula import Formula
    from rankloom.tensorfile.index import Index, Spans


@dataclass(frozen=True, slots=True)
class Block:
    """Rows ``start`` to ``stop`` and the parts of formulas that are added to them.

    Attributes:
        start: the first row.
        stop: the last row + 1.
        transposed: the formulas are added transposed.
        items: each a formula and the part of its parameter, a matrix.
    """

    start: int
    stop: int
    transposed: bool
    items: tuple[tuple[Formula, Index], ...]


def blocks(contributions: Sequence[Contribution]) -> tuple[Block, ...] | None:
    """Return the blocks in the order of their rows, or ``None`` if not all are products of factors.

    Contributions to the very same rows become one block.
    """
    found: dict[tuple[int, int, bool], Block] = {}
    for one in contributions:
        if not one.formula.is_low_rank:
            return None
        for block in _of(one):
            if block is None:
                return None
            key = block.start, block.stop, block.transposed
            earlier = found[key].items if key in found else ()
            found[key] = replace(block, items=earlier + block.items)
    ordered = sorted(found.values(), key=lambda block: block.start)
    apart = all(one.stop <= two.start for one, two in pairwise(ordered))
    return tuple(ordered) if apart else None


def _of(one: Contribution) -> Iterator[Block | None]:
    piece, stored = one.piece, one.piece.entry.shape
    region, part = spans(piece.region, stored), spans(piece.part, one.shape)
    if len(stored) == 2:
        yield _block(one, 0, region, part)
    elif len(stored) == 3 and isinstance(region[0], int):
        yield _block(one, region[0] * stored[1], region[1:], part)
    elif len(stored) == 3 and len(part) == 3:
        places, experts = region[0], part[0]
        assert isinstance(places, range) and isinstance(experts, range)  # noqa: S101, PT018
        for place, expert in zip(places, experts, strict=True):
            yield _block(one, place * stored[1], region[1:], (expert, *part[1:]))
    else:
        yield None


def _block(one: Contribution, offset: int, region: Spans, part: Spans) -> Block | None:
    """Return the block of one matrix whose first row is row ``offset``; ``None``: it is none."""
    rows, columns = region
    if not isinstance(rows, range) or rows.step != 1:
        return None
    whole = columns == range(one.piece.entry.shape[-1])
    if not whole or not all(isinstance(span, range) for span in part[-2:]):
        return None
    start, stop = offset + rows.start, offset + rows.stop
    return Block(start, stop, one.piece.transposed, ((one.formula, index(part)),))
