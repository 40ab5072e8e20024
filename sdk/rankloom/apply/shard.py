"""Writes one file of a checkpoint: changed tensors through tiles, the rest copied."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from rankloom.apply.transfer import copy_range, read_into, view_bytes, write_at
from rankloom.change.dtypes import CODES, FLOATS
from rankloom.change.evaluate import Loaded, load
from rankloom.errors import IncompatibleError
from rankloom.tensorfile.layout import lay_out
from rankloom_kernels import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from rankloom.apply.place import Placed
    from rankloom.tensorfile.header import Header, TensorEntry


@dataclass(slots=True)
class Tiles:
    """The three buffers that every tile of every tensor goes through."""

    source: Workspace = field(default_factory=Workspace)
    result: Workspace = field(default_factory=Workspace)
    sums: Workspace = field(default_factory=Workspace)


@dataclass(slots=True)
class ShardWriter:
    """Writes shards one after the other through the same buffers.

    Attributes:
        dtype: what floating tensors become; ``None``: every tensor keeps its own.
        progress: told the bytes of each step.
        unchanged: names of changed tensors that kept every bit, so far.
    """

    dtype: torch.dtype | None
    progress: Callable[[int], None]
    unchanged: list[str] = field(default_factory=list)
    tiles: Tiles = field(default_factory=Tiles)

    def write(self, header: Header, placed: Mapping[str, Placed], target: Path) -> int:
        """Write one file and sync it to the disk.

        Args:
            header: header of the base's file.
            placed: what is added, by the tensor's name on disk.
            target: the new file.

        Returns:
            Its size in bytes.
        """
        source = os.open(header.path, os.O_RDONLY)
        sink = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            if self.dtype is None:
                size = self._in_place_layout(source, header, placed, sink)
            else:
                size = self._new_layout(source, header, placed, sink)
            os.fsync(sink)
        finally:
            os.close(source)
            os.close(sink)
        return size

    def _in_place_layout(
        self, source: int, header: Header, placed: Mapping[str, Placed], sink: int
    ) -> int:
        """Copy everything between changed tensors as it lies, the header included."""
        position = 0
        for item in sorted(placed.values(), key=lambda item: item.entry.start):
            entry = item.entry
            self._copy(source, position, sink, position, entry.start - position)
            self._merge(source, item, sink, entry)
            position = entry.end
        size = os.fstat(source).st_size
        self._copy(source, position, sink, position, size - position)
        return size

    def _new_layout(
        self, source: int, header: Header, placed: Mapping[str, Placed], sink: int
    ) -> int:
        tensors = [
            (entry.name, converted(entry.dtype, self.dtype), entry.shape)
            for entry in header.tensors.values()
        ]
        prefix, new = lay_out(header.path, tensors, header.metadata)
        write_at(sink, memoryview(prefix), 0)
        self.progress(len(prefix))
        for name, entry in new.tensors.items():
            old = header.tensors[name]
            if name in placed:
                self._merge(source, placed[name], sink, entry)
            elif entry.dtype == old.dtype:
                self._copy(source, old.start, sink, entry.start, old.end - old.start)
            else:
                self._stream(source, old, sink, entry, None)
        return max([len(prefix), *(entry.end for entry in new.tensors.values())])

    def _copy(self, source: int, start: int, sink: int, offset: int, count: int) -> None:
        copy_range(source, start, sink, offset, count, self.progress)

    def _merge(self, source: int, item: Placed, sink: int, new: TensorEntry) -> None:
        wide = torch.float64 in {FLOATS[item.entry.dtype], FLOATS[new.dtype]}
        dtype = torch.float64 if wide else torch.float32
        loaded = load(item.formula, transposed=item.transposed, dtype=dtype)
        if not self._stream(source, item.entry, sink, new, loaded):
            self.unchanged.append(item.entry.name)

    def _stream(
        self, source: int, old: TensorEntry, sink: int, new: TensorEntry, loaded: Loaded | None
    ) -> bool:
        """Convert a tensor tile by tile, adding ``loaded``; return whether that changed a bit."""
        dtypes = FLOATS[old.dtype], FLOATS[new.dtype]
        columns = old.shape[-1] if old.shape else 1
        count = (old.end - old.start) // (dtypes[0].itemsize * max(1, columns))
        height = self.tiles.sums.rows(columns, max(dtypes, key=lambda dtype: dtype.itemsize))
        changed = False
        for start in range(0, count, height):
            rows = min(height, count - start)
            tile = self.tiles.source.tile(rows, columns, dtypes[0], torch.device("cpu"))
            read_into(source, view_bytes(tile), old.start + start * columns * dtypes[0].itemsize)
            result = self.tiles.result.tile(rows, columns, dtypes[1], torch.device("cpu"))
            if loaded is None:
                result.copy_(tile)
            else:
                loaded.merge_(tile, start=start, out=result, workspace=self.tiles.sums)
                changed = changed or not torch.equal(result, tile.to(dtypes[1]))
            _check_overflow(tile, result, new)
            data = view_bytes(result)
            write_at(sink, data, new.start + start * columns * dtypes[1].itemsize)
            self.progress(len(data))
        return changed


def converted(code: str, dtype: torch.dtype | None) -> str:
    """Return the dtype code that a tensor gets: floats are converted, all others stay."""
    return code if dtype is None or code not in FLOATS else CODES[dtype]


def _check_overflow(tile: torch.Tensor, result: torch.Tensor, entry: TensorEntry) -> None:
    """Refuse values beyond the largest float16; the other dtypes reach as far as float32."""
    narrow = result.dtype == torch.float16 or tile.dtype == torch.float64
    if narrow and bool((~torch.isfinite(result) & torch.isfinite(tile)).any()):
        message = f"NUM004 values of {entry.name} overflow {entry.dtype}"
        raise IncompatibleError(message, hint="give a dtype with a larger range, e.g. bfloat16")
