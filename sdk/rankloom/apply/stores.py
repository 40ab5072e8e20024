"""Where checkpoints are read from and written to."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from rankloom.apply.dense import read_stored
from rankloom.apply.transfer import LocalSource

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch

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

    def __enter__(self) -> Sources:
        return self

    def __exit__(self, *_: object) -> None:
        for source in self._opened.values():
            source.close()
