"""Carries out one step: copies bytes, or takes a tensor through tiles."""

from __future__ import annotations

import math
from collections import deque
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, NamedTuple

import torch

from rankloom.apply.blocks import Block, blocks
from rankloom.apply.dense import Slabs
from rankloom.apply.steps import Compute, Copy, Step
from rankloom.apply.transfer import view_bytes
from rankloom.change.dtypes import ALL_DTYPES
from rankloom.change.evaluate import Loaded, load_all
from rankloom.errors import IncompatibleError

if TYPE_CHECKING:
    from rankloom.apply.lanes import Lane, Tiles
    from rankloom.apply.stores import Sources
    from rankloom.apply.transfer import Sink
    from rankloom.tensorfile.header import TensorEntry

_CPU = torch.device("cpu")


def carry_out(step: Step, sources: Sources, sink: Sink, tiles: Tiles) -> bool:
    """Do one step.

    Args:
        step: what to do.
        sources: the files of the base.
        sink: the new file.
        tiles: of the worker that does it.

    Returns:
        Whether it changed a value: ``False`` for a copy.

    Raises:
        IncompatibleError: values overflow the new dtype.
        AdapterError: a factor cannot be read.
    """
    if isinstance(step, Copy):
        sink.copy_from(sources.open(step.path), step.start, step.offset, step.count)
        return False
    work = _Work(step, sources, tiles)
    under_way: deque[_Tile] = deque()
    for lane, (start, stop) in zip(cycle(tiles.lanes), work.tiles(), strict=False):
        if len(under_way) == len(tiles.lanes):
            work.write(under_way.popleft(), sink)
        under_way.append(work.begin(lane, start, stop))
    for one in under_way:
        work.write(one, sink)
    return work.has_changed


class _Tile(NamedTuple):
    """Some rows that are being changed."""

    lane: Lane
    start: int
    old: torch.Tensor
    new: torch.Tensor


class _Work:
    """One tensor on its way: a matrix of rows that are read, changed and written in tiles."""

    def __init__(self, step: Compute, sources: Sources, tiles: Tiles) -> None:
        self._step, self._sources, self._tiles = step, sources, tiles
        self.has_changed = step.old is None or step.new.shape != step.old.shape
        self._dtypes = [ALL_DTYPES[entry.dtype] for entry in (step.old, step.new) if entry]
        contributions = step.placed.contributions if step.placed else ()
        found = blocks(contributions)
        self._blocks = [] if found is None else [(one, self._load(one)) for one in found]
        self._slabs = None
        if found is None:
            self._slabs = Slabs(contributions, sources.read, tiles.device)
        shape = step.new.shape
        # A slab is whole along the first axis, so that regions can be cut at its ends.
        self._rows = math.prod(shape[:1] if self._slabs else shape[:-1])
        self.width = math.prod(shape) // max(1, self._rows)

    def _load(self, block: Block) -> Loaded:
        dtype = torch.float64 if torch.float64 in self._dtypes else torch.float32
        return load_all(
            block.items,
            transposed=block.transposed,
            dtype=dtype,
            device=self._tiles.device,
            recent=self._tiles.recent,
            for_bfloat16=set(self._dtypes) == {torch.bfloat16},
        )

    def tiles(self) -> list[tuple[int, int]]:
        """Return (first row, last row + 1) of each tile."""
        widest = max([*self._dtypes, *[torch.float64] * bool(self._slabs)], key=_itemsize)
        height = self._tiles.sums.rows(self.width, widest)
        return [(row, min(row + height, self._rows)) for row in range(0, self._rows, height)]

    def begin(self, lane: Lane, start: int, stop: int) -> _Tile:
        """Read rows and let a lane change them."""
        old = self._read(lane, start, stop)
        new = lane.result.tile(stop - start, self.width, ALL_DTYPES[self._step.new.dtype], _CPU)
        lane.run(partial(self._fill, start), new, old)
        return _Tile(lane, start, old, new)

    def write(self, tile: _Tile, sink: Sink) -> None:
        """Write rows once they are changed.

        Raises:
            IncompatibleError: values overflow the new dtype.
        """
        tile.lane.wait()
        entry = self._step.new
        _check_overflow(tile.old, tile.new, entry)
        self.has_changed = self.has_changed or _differ(tile.new, tile.old)
        sink.write_at(
            view_bytes(tile.new), entry.start + tile.start * self.width * tile.new.itemsize
        )

    def _read(self, lane: Lane, start: int, stop: int) -> torch.Tensor:
        """Return rows of the base, or zeros where it has none."""
        old = self._step.old
        if old is None:
            return lane.source.tile(stop - start, self.width, torch.float32, _CPU).zero_()
        tile = lane.source.tile(stop - start, self.width, ALL_DTYPES[old.dtype], _CPU)
        source = self._sources.open(old.path)
        source.read_into(view_bytes(tile), old.start + start * self.width * tile.itemsize)
        return tile

    def _fill(self, start: int, result: torch.Tensor, tile: torch.Tensor) -> None:
        """Set ``result`` to the rows from ``start`` on, changed."""
        if self._slabs is not None:
            shape = (len(tile), *self._step.new.shape[1:])[: len(self._step.new.shape)]
            self._slabs.fill(result.view(shape), tile.view(shape), start)
            return
        done = 0
        for block, loaded in self._blocks:
            first = max(block.start - start, 0)
            last = min(block.stop - start, len(tile))
            if first >= last:
                continue
            result[done:first].copy_(tile[done:first])
            rows, out = tile[first:last], result[first:last]
            loaded.merge_(
                rows, start=start + first - block.start, out=out, workspace=self._tiles.sums
            )
            done = last
        result[done:].copy_(tile[done:])


def _differ(result: torch.Tensor, tile: torch.Tensor) -> bool:
    """Tell whether values are others; the first row mostly shows it."""
    return any(
        not torch.equal(result[rows], tile[rows].to(result.dtype))
        for rows in (slice(1), slice(1, None))
    )


def _itemsize(dtype: torch.dtype) -> int:
    return dtype.itemsize


def _check_overflow(tile: torch.Tensor, result: torch.Tensor, entry: TensorEntry) -> None:
    """Refuse values beyond the largest float16; the other dtypes reach as far as float32."""
    narrow = result.dtype == torch.float16 or tile.dtype == torch.float64
    if narrow and bool((~torch.isfinite(result) & torch.isfinite(tile)).any()):
        message = f"NUM004 values of {entry.name} overflow {entry.dtype}"
        raise IncompatibleError(message, hint="give a dtype with a larger range, e.g. bfloat16")
