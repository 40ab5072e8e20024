"""Where checkpoints are read from and written to."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING

import torch

from rankloom.apply.dense import read_stored
from rankloom.apply.transfer import LocalSource, view_bytes
from rankloom.change.dtypes import ALL_DTYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rankloom.apply.transfer import Source
    from rankloom.tensorfile.header import TensorEntry


class Sources:
    """The files of a base, each opened once, for several threads.

    Args:
        opening: what opens one.
    """

    def __init__(self, opening: Callable[[Path], Source] = LocalSource) -> None:
        self._opening = opening
        self._opened: dict[Path, Source] = {}
        self._lock = threading.Lock()

    def open(self, path: Path) -> Source:
        """Return a file that stays open until all are closed."""
        with self._lock:
            if path not in self._opened:
                self._opened[path] = self._opening(path)
            return self._opened[path]

    def read(self, entry: TensorEntry) -> torch.Tensor:
        """Return a whole tensor in its own dtype.

        Raises:
            BaseError: the file ends before the tensor does.
        """
        return read_stored(entry, self.open(entry.path))

    def read_box(self, entry: TensorEntry, box: Sequence[range]) -> torch.Tensor:
        """Return a box of a tensor in its own dtype, from one read.

        Args:
            entry: the tensor.
            box: a range without steps on each axis. What lies between its first and its last
                element is read, so all axes but the last two should have one place.

        Raises:
            BaseError: the file ends before the box does.
        """
        shape, dtype = [len(span) for span in box], ALL_DTYPES[entry.dtype]
        if not math.prod(shape):
            return torch.empty(shape, dtype=dtype)
        strides = [math.prod(entry.shape[axis + 1 :]) for axis in range(len(box))]
        pairs = list(zip(box, strides, strict=True))
        first = sum(span.start * stride for span, stride in pairs)
        last = sum((span.stop - 1) * stride for span, stride in pairs)
        flat = torch.empty(last - first + 1, dtype=dtype)
        source = self.open(entry.path)
        source.read_into(view_bytes(flat), entry.start + first * dtype.itemsize)
        return flat.as_strided(shape, strides)

    def __enter__(self) -> Sources:
        return self

    def __exit__(self, *_: object) -> None:
        for source in self._opened.values():
            source.close()
