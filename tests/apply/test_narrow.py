"""Regions of stored tensors, cut into slabs of rows, against numpy's own indexing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rankloom.adapter.change import ExpertLowRank
from rankloom.apply.blocks import blocks
from rankloom.apply.narrow import box_of_rows, cut
from rankloom.apply.placed import Contribution
from rankloom.base.model import Piece
from rankloom.base.pieces import local_shape, parameter_shape
from rankloom.change.formula import Sum, Weighted
from rankloom.tensorfile.header import TensorEntry
from rankloom.tensorfile.index import index, sizes, spans


@st.composite
def pieces(draw: st.DrawFn) -> Piece:
    """Any region of any stored tensor, as part of a parameter that may be larger."""
    shape = tuple(draw(st.lists(st.integers(1, 7), min_size=1, max_size=3)))
    region = tuple(draw(st.one_of(spot(size), box(size, steps=True))) for size in shape)
    region = region[: draw(st.integers(0, len(region)))]
    entry = TensorEntry(Path("base"), "w", "F32", shape, 0, 0)
    transposed = draw(st.booleans())
    local = local_shape(Piece(entry, transposed, region))
    part: list[int | slice] = []
    for size in local:
        if draw(st.integers(0, 3)) == 0:
            part.append(draw(st.integers(0, 4)))
        first = draw(st.integers(0, 3))
        part.append(slice(first, first + size))
    return Piece(entry, transposed, region, tuple(part) if draw(st.booleans()) else ())


def spot(size: int) -> st.SearchStrategy[int]:
    return st.integers(0, size - 1)


def box(size: int, *, steps: bool) -> st.SearchStrategy[slice]:
    ends = st.tuples(st.integers(0, size - 1), st.integers(1, size), st.integers(1, 3))
    return ends.map(lambda e: slice(min(e[0], e[1] - 1), e[1], e[2] if steps else 1))


@given(piece=pieces(), height=st.integers(1, 8))
def test_slabs_hold_the_region_and_nothing_else(piece: Piece, height: int) -> None:
    shape = parameter_shape([piece])
    stored = np.arange(np.prod(piece.entry.shape)).reshape(piece.entry.shape)
    region = stored[piece.region]
    turned = region.swapaxes(-1, -2) if piece.transposed and region.ndim > 1 else region
    parameter = np.full(shape, -1)
    parameter[piece.part] = turned
    one = Contribution(piece, (piece,), shape, Sum(()))
    found = np.full(shape, -1)
    covered = np.zeros(piece.entry.shape, bool)
    for start in range(0, piece.entry.shape[0], height):
        slab = cut(one, box_of_rows(one.piece.entry.shape, start, start + height))
        if slab is None:
            continue
        rows = stored[start : start + height][index(slab.region)]
        is_turned = slab.transposed and rows.ndim > 1
        found[index(slab.part)] = rows.swapaxes(-1, -2) if is_turned else rows
        covered[start : start + height][index(slab.region)] = True
    assert np.array_equal(found, parameter)
    marked = np.zeros(piece.entry.shape, bool)
    marked[piece.region] = True
    assert np.array_equal(covered, marked)


@given(st.data())
def test_spans_are_what_an_index_covers(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 6), max_size=3)))
    region = tuple(data.draw(st.one_of(spot(size), box(size, steps=True))) for size in shape)
    values = np.arange(np.prod(shape)).reshape(shape)
    covered = spans(region, shape)
    assert np.array_equal(values[index(covered)], values[region])
    assert sizes(covered) == values[region].shape


def test_experts_and_parts_of_fused_tensors_are_blocks_of_rows() -> None:
    entry = TensorEntry(Path("base"), "w", "F32", (3, 4, 5), 0, 0)
    change = ExpertLowRank(entry, entry, 2, 1.0)
    formula = Sum((Weighted(1.0, change),))
    whole = Contribution(Piece(entry), (), (3, 4, 5), formula)
    assert found([whole]) == [(0, 4, (0,)), (4, 8, (1,)), (8, 12, (2,))]
    second = Piece(entry, region=(1, slice(2, 4)), part=(7, slice(0, 2)))
    assert found([Contribution(second, (), (8, 2, 5), formula)]) == [(6, 8, (7,))]
    columns = Piece(entry, region=(1, slice(None), slice(0, 2)), part=(7,))
    assert blocks([Contribution(columns, (), (8, 4, 2), formula)]) is None
    assert blocks([whole, Contribution(second, (), (8, 2, 5), formula)]) is None  # they overlap
    assert len(blocks([whole, whole]) or ()) == 3


def found(contributions: list[Contribution]) -> list[tuple[int, int, object]]:
    """Return rows and expert of each block."""
    return [
        (block.start, block.stop, block.items[0][1][:1]) for block in blocks(contributions) or ()
    ]
