"""Carries out one step: copies bytes, or takes a tensor through tiles."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from rankloom.apply.steps import Compute, Copy, Step
from rankloom.apply.transfer import copy_range, read_into, view_bytes, write_at
from rankloom.change.dtypes import FLOATS
from rankloom.change.evaluate import Loaded, load
from rankloom.errors import IncompatibleError
from rankloom_kernels import Workspace

if TYPE_CHECKING:
    from rankloom.apply.place import Placed
    from rankloom.tensorfile.header import TensorEntry

_CPU = torch.device("cpu")


@dataclass(slots=True)
class Tiles:
    """The buffers that every tile of every tensor goes through, for one worker."""

    source: Workspace = field(default_factory=Workspace)
    result: Workspace = field(default_factory=Workspace)
    sums: Workspace = field(default_factory=Workspace)


def carry_out(step: Step, source: int, sink: int, tiles: Tiles) -> bool:
    """Do one step between two open files.

    Returns:
        Whether it changed a value: ``False`` for a copy.

    Raises:
        IncompatibleError: values overflow the new dtype.
        AdapterError: a factor cannot be read.
    """
    if isinstance(step, Copy):
        copy_range(source, step.start, sink, step.offset, step.count)
        return False
    loaded = _load(step, step.placed) if step.placed else None
    changed = False
    for start, stop, columns in _tiles(step, tiles):
        tile = tiles.source.tile(stop - start, columns, FLOATS[step.old.dtype], _CPU)
        read_into(source, view_bytes(tile), step.old.start + start * columns * tile.itemsize)
        result = tiles.result.tile(stop - start, columns, FLOATS[step.new.dtype], _CPU)
        changed = _fill(result, tile, start, loaded, tiles.sums, changed)
        _check_overflow(tile, result, step.new)
        write_at(sink, view_bytes(result), step.new.start + start * columns * result.itemsize)
    return changed


def _load(step: Compute, placed: Placed) -> Loaded:
    wide = torch.float64 in {FLOATS[step.old.dtype], FLOATS[step.new.dtype]}
    dtype = torch.float64 if wide else torch.float32
    return load(placed.formula, transposed=placed.transposed, dtype=dtype)


def _tiles(step: Compute, tiles: Tiles) -> list[tuple[int, int, int]]:
    """Return (first row, last row + 1, columns) of each tile."""
    shape, dtypes = step.old.shape, (FLOATS[step.old.dtype], FLOATS[step.new.dtype])
    columns = shape[-1] if shape else 1
    count = (step.old.end - step.old.start) // (dtypes[0].itemsize * max(1, columns))
    height = tiles.sums.rows(columns, max(dtypes, key=lambda dtype: dtype.itemsize))
    return [(row, min(row + height, count), columns) for row in range(0, count, height)]


def _fill(
    result: torch.Tensor,
    tile: torch.Tensor,
    start: int,
    loaded: Loaded | None,
    sums: Workspace,
    changed: bool,
) -> bool:
    if loaded is None:
        result.copy_(tile)
        return False
    loaded.merge_(tile, start=start, out=result, workspace=sums)
    return changed or not torch.equal(result, tile.to(result.dtype))


def _check_overflow(tile: torch.Tensor, result: torch.Tensor, entry: TensorEntry) -> None:
    """Refuse values beyond the largest float16; the other dtypes reach as far as float32."""
    narrow = result.dtype == torch.float16 or tile.dtype == torch.float64
    if narrow and bool((~torch.isfinite(result) & torch.isfinite(tile)).any()):
        message = f"NUM004 values of {entry.name} overflow {entry.dtype}"
        raise IncompatibleError(message, hint="give a dtype with a larger range, e.g. bfloat16")
