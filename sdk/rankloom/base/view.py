"""A parameter as a view of stored tensors: which region of which one holds which part of it.

Every operation takes views and returns one; no value is touched. With them the conversions that
transformers makes while loading are followed on headers alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rankloom.base.model import Piece

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rankloom.tensorfile.header import TensorEntry

Index = int | slice


class NotAViewError(ValueError):
    """An operation that only copying could do, or that does not fit the shapes."""


@dataclass(frozen=True, slots=True)
class Block:
    """A box of one stored tensor.

    Attributes:
        entry: the stored tensor.
        region: for each of its axes, an index or a slice with a positive step.
        part: for each axis of the view, where the box lies; slices have step one.
        axes: for each slice of ``part`` in order, the axis of ``region`` that runs along with it.
    """

    entry: TensorEntry
    region: tuple[Index, ...]
    part: tuple[Index, ...]
    axes: tuple[int, ...]

    def axis(self, dim: int) -> int:
        """Return the axis of the region that runs along with an axis of the view."""
        return self.axes[sum(isinstance(index, slice) for index in self.part[:dim])]


@dataclass(frozen=True, slots=True)
class View:
    """A tensor made of boxes of stored tensors, which cover it and do not overlap."""

    shape: tuple[int, ...]
    blocks: tuple[Block, ...]


def whole(entry: TensorEntry) -> View:
    """Return a stored tensor as it is."""
    everything = tuple(slice(0, size, 1) for size in entry.shape)
    axes = tuple(range(len(entry.shape)))
    return View(entry.shape, (Block(entry, everything, everything, axes),))


def stack(views: Sequence[View]) -> View:
    """Return views of one shape along a new first axis."""
    _check_same({view.shape for view in views})
    blocks = (
        replace(block, part=(number, *block.part))
        for number, view in enumerate(views)
        for block in view.blocks
    )
    return View((len(views), *views[0].shape), tuple(blocks))


def concatenate(views: Sequence[View], dim: int) -> View:
    """Return views one after the other along an axis."""
    _check_same({view.shape[:dim] + view.shape[dim + 1 :] for view in views})
    blocks: list[Block] = []
    start = 0
    for view in views:
        blocks += [_shifted(block, dim, start) for block in view.blocks]
        start += view.shape[dim]
    return View(_with(views[0].shape, dim, start), tuple(blocks))


def narrow(view: View, dim: int, start: int, stop: int) -> View:
    """Return the elements from start to stop of an axis."""
    if not 0 <= start < stop <= view.shape[dim]:
        raise NotAViewError(f"{start}:{stop} of {view.shape[dim]}")
    cut = (_cut(block, dim, start, stop) for block in view.blocks)
    kept = tuple(_shifted(block, dim, -start) for block in cut if block)
    return View(_with(view.shape, dim, stop - start), kept)


def chunk(view: View, dim: int, count: int) -> list[View]:
    """Return equal parts along an axis."""
    size, rest = divmod(view.shape[dim], count)
    if rest:
        raise NotAViewError(f"{view.shape[dim]} in {count} equal parts")
    return [narrow(view, dim, n * size, (n + 1) * size) for n in range(count)]


def select(view: View, index: int) -> View:
    """Return one element of the first axis."""
    one = narrow(view, 0, index, index + 1)
    return View(view.shape[1:], tuple(_without_first(block) for block in one.blocks))


def transpose(view: View, dim0: int, dim1: int) -> View:
    """Return the view with two axes exchanged."""
    order = list(range(len(view.shape)))
    order[dim0], order[dim1] = dim1, dim0
    return View(
        tuple(view.shape[dim] for dim in order),
        tuple(_reordered(block, order) for block in view.blocks),
    )


def deinterleave(view: View, dim: int) -> View:
    """Return first the elements of even numbers along an axis, then those of odd ones."""
    half, rest = divmod(view.shape[dim], 2)
    if rest:
        raise NotAViewError(f"{view.shape[dim]} in pairs")
    blocks = [
        _shifted(found, dim, odd * half)
        for odd in (0, 1)
        for block in view.blocks
        if (found := _every_second(block, dim, odd))
    ]
    return View(view.shape, tuple(blocks))


def pieces(view: View) -> tuple[Piece, ...]:
    """Return the view as what it is made of.

    Raises:
        NotAViewError: axes lie in an order that a piece cannot say.
    """
    return tuple(_piece(block, view.shape) for block in view.blocks)


def _piece(block: Block, shape: tuple[int, ...]) -> Piece:
    straight = tuple(sorted(block.axes))
    swapped = (*straight[:-2], *straight[:-3:-1])
    if block.axes not in {straight, swapped}:
        raise NotAViewError(f"axes {block.axes} of {block.entry.name}")
    return Piece(
        block.entry,
        block.axes != straight,
        _short(block.region, block.entry.shape),
        _short(block.part, shape),
    )


def _short(index: tuple[Index, ...], shape: tuple[int, ...]) -> tuple[Index, ...]:
    """Return an index without the steps of one, and nothing if it is all there is."""
    full = tuple(slice(0, size, 1) for size in shape)
    if index == full:
        return ()
    return tuple(
        slice(part.start, part.stop) if isinstance(part, slice) and part.step == 1 else part
        for part in index
    )


def _check_same(shapes: set[tuple[int, ...]]) -> None:
    if len(shapes) != 1:
        raise NotAViewError(f"shapes {sorted(shapes)}")


def _with(shape: tuple[int, ...], dim: int, size: int) -> tuple[int, ...]:
    return (*shape[:dim], size, *shape[dim + 1 :])


def _replaced(index: tuple[Index, ...], dim: int, new: Index) -> tuple[Index, ...]:
    return (*index[:dim], new, *index[dim + 1 :])


def _shifted(block: Block, dim: int, by: int) -> Block:
    old = block.part[dim]
    new = slice(old.start + by, old.stop + by, 1) if isinstance(old, slice) else old + by
    return replace(block, part=_replaced(block.part, dim, new))


def _cut(block: Block, dim: int, start: int, stop: int) -> Block | None:
    part = block.part[dim]
    if not isinstance(part, slice):
        return block if start <= part < stop else None
    low, high = max(part.start, start), min(part.stop, stop)
    if low >= high:
        return None
    return _taken(block, dim, low - part.start, high - low, 1, low)


def _every_second(block: Block, dim: int, odd: int) -> Block | None:
    part = block.part[dim]
    if not isinstance(part, slice):
        new = _replaced(block.part, dim, part // 2)
        return replace(block, part=new) if part % 2 == odd else None
    first = part.start + (part.start + odd) % 2
    count = len(range(first, part.stop, 2))
    return _taken(block, dim, first - part.start, count, 2, first // 2) if count else None


def _taken(block: Block, dim: int, skip: int, count: int, step: int, place: int) -> Block:
    """Return ``count`` elements of an axis from ``skip`` on, as the part that starts at a place."""
    axis = block.axis(dim)
    old = _slice(block.region[axis])
    start, wide = old.start + skip * old.step, old.step * step
    region = slice(start, start + (count - 1) * wide + 1, wide)
    return replace(
        block,
        region=_replaced(block.region, axis, region),
        part=_replaced(block.part, dim, slice(place, place + count, 1)),
    )


def _without_first(block: Block) -> Block:
    first = block.part[0]
    if not isinstance(first, slice):
        return replace(block, part=block.part[1:])
    axis = block.axes[0]
    old = _slice(block.region[axis])
    region = _replaced(block.region, axis, old.start)
    return replace(block, region=region, part=block.part[1:], axes=block.axes[1:])


def _slice(index: Index) -> slice:
    """Return an index of the region along which a part runs: never a number."""
    if isinstance(index, slice):
        return index
    raise NotAViewError(str(index))


def _reordered(block: Block, order: Sequence[int]) -> Block:
    part = tuple(block.part[dim] for dim in order)
    axes = tuple(_axes_along(block, order))
    return replace(block, part=part, axes=axes)


def _axes_along(block: Block, order: Sequence[int]) -> Iterator[int]:
    for dim in order:
        if isinstance(block.part[dim], slice):
            yield block.axis(dim)
