"""What has to be done to write one file of a checkpoint, as values, before anything is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rankloom.change.dtypes import CODES, FLOATS
from rankloom.tensorfile.layout import lay_out

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import torch

    from rankloom.apply.placed import Placed
    from rankloom.tensorfile.header import Header, TensorEntry

COPY_BYTES = 32 << 20
"""Largest copy in one step: progress moves, and several workers share a large tensor."""


@dataclass(frozen=True, slots=True)
class Copy:
    """Take ``count`` bytes at ``start`` of a file of the base as they are to ``offset``."""

    path: Path
    start: int
    offset: int
    count: int

    @property
    def nbytes(self) -> int:
        """Bytes written."""
        return self.count


@dataclass(frozen=True, slots=True)
class Compute:
    """Read a tensor, add a change or none, and write it in the dtype of ``new``.

    A tensor that takes no value of the base has no ``old``.
    """

    old: TensorEntry | None
    new: TensorEntry
    placed: Placed | None

    @property
    def nbytes(self) -> int:
        """Bytes written."""
        return self.new.end - self.new.start


Step = Copy | Compute


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """One file to write.

    Attributes:
        name: of the file.
        prefix: first bytes, where they differ from the base's; else empty.
        steps: everything else, in the order of the new file.
        new: header of the new file.
    """

    name: str
    prefix: bytes
    steps: tuple[Step, ...]
    new: Header

    @property
    def nbytes(self) -> int:
        """Size of the new file."""
        return len(self.prefix) + sum(step.nbytes for step in self.steps)


def plan_shard(
    header: Header, placed: Mapping[str, Placed], dtype: torch.dtype | None
) -> ShardPlan:
    """Plan one file.

    Args:
        header: header of the base's file.
        placed: what is added, by the tensor's name on disk; new tensors too.
        dtype: what floating tensors become. ``None``: each keeps its own, and then the new file
            has the header and the layout of the old one, byte for byte, unless a tensor is new or
            has a new shape.
    """
    if dtype is None and not any(item.is_new for item in placed.values()):
        return ShardPlan(header.path.name, b"", tuple(_same_layout(header, placed)), header)
    shapes = {entry.name: (entry.dtype, entry.shape) for entry in header.tensors.values()}
    shapes |= {item.name: (item.dtype, item.shape) for item in placed.values()}
    tensors = [(name, converted(code, dtype), shape) for name, (code, shape) in shapes.items()]
    prefix, new = lay_out(header.path, tensors, header.metadata)
    steps = tuple(new_layout(header.tensors, new, placed))
    return ShardPlan(header.path.name, prefix, steps, new)


def converted(code: str, dtype: torch.dtype | None) -> str:
    """Return the dtype code that a tensor gets: floats are converted, all others stay."""
    return code if dtype is None or code not in FLOATS else CODES[dtype]


def _same_layout(header: Header, placed: Mapping[str, Placed]) -> Iterator[Step]:
    position = 0
    sources = [(item.source, item) for item in placed.values() if item.source is not None]
    for entry, item in sorted(sources, key=lambda pair: pair[0].start):
        yield from _copies(header.path, position, position, entry.start - position)
        yield Compute(entry, entry, item)
        position = entry.end
    # The format leaves no gap, so the file ends where its last tensor does.
    size = max((entry.end for entry in header.tensors.values()), default=position)
    yield from _copies(header.path, position, position, size - position)


def new_layout(
    tensors: Mapping[str, TensorEntry], new: Header, placed: Mapping[str, Placed]
) -> Iterator[Step]:
    """Yield the steps that fill a new file.

    Args:
        tensors: of the base, by name.
        new: header of the new file.
        placed: what is added, by name.
    """
    for name, entry in new.tensors.items():
        item, old = placed.get(name), tensors.get(name)
        if item is not None:
            yield Compute(item.source, entry, item)
        elif old is not None and entry.dtype != old.dtype:
            yield Compute(old, entry, None)
        elif old is not None:
            yield from _copies(old.path, old.start, entry.start, old.end - old.start)


def _copies(path: Path, start: int, offset: int, count: int) -> Iterator[Copy]:
    for done in range(0, count, COPY_BYTES):
        yield Copy(path, start + done, offset + done, min(COPY_BYTES, count - done))
