"""Writing whole pages past the page cache: the disk takes them from the buffer they lie in.

What goes through the page cache is copied into memory that the kernel has to find first, and is
copied again when it is written. On a virtual machine an apply to 2 GB spent 1.2 s of processor time
in the kernel that way, and spends 0.6 to 0.9 s this way. The disk asks for whole pages in return:
of the file and of memory.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from pathlib import Path

PAGE = 4096
"""What places in the file, addresses in memory and lengths are multiples of."""

LEAST = 64 << 10
"""Bytes that are worth a transfer of their own; fewer are collected in the page cache."""

NOT_HERE = {errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM}
"""What a file system answers that cannot do what it was asked, or not with this file."""


class Direct:
    """A file that is open for writing whole pages, if its file system can do that.

    One that cannot is found out when it refuses to open the file, or the first write.

    Attributes:
        works: nothing has shown yet that the file system cannot.

    Args:
        path: the file; it must exist.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor: int | None = None
        self.works = hasattr(os, "O_DIRECT")
        if self.works:
            try:
                self._descriptor = os.open(path, os.O_WRONLY | os.O_DIRECT)
            except OSError:
                self.works = False

    def write_pages(self, data: memoryview, offset: int) -> range:
        """Write the whole pages among ``data``, if they lie in memory as in the file.

        Args:
            data: what belongs at ``offset``.
            offset: in the file.

        Returns:
            The part of ``data`` that was written; empty, if none was.

        Raises:
            OSError: the disk refuses what the file system took.
        """
        start = -offset % PAGE
        stop = len(data) - (offset + len(data)) % PAGE
        done = start
        if not self.works or stop - start < LEAST or (_address(data) + start) % PAGE:
            return range(0)
        assert self._descriptor is not None  # noqa: S101 - or it would not work
        while done < stop:
            try:
                done += os.pwrite(self._descriptor, data[done:stop], offset + done)
            except OSError as error:
                if error.errno not in NOT_HERE:
                    raise
                self.works = False
                break
        return range(start, done)

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)


def _address(data: memoryview) -> int:
    address: int = np.frombuffer(data, np.uint8).ctypes.data
    return address


class Pages:
    """Memory from which tiles are cut that lie in their pages as they will in the file.

    It is allocated once and used for every tile, as a
    :class:`~rankloom_kernels.workspace.Workspace` is.

    Args:
        nbytes: of a usual tile.
        pinned: memory that a CUDA device copies from and to by itself.
    """

    def __init__(self, nbytes: int, *, pinned: bool = False) -> None:
        self._nbytes, self._pinned = nbytes, pinned
        self._held = torch.empty(0, dtype=torch.uint8)

    def tile(self, rows: int, columns: int, dtype: torch.dtype, offset: int) -> torch.Tensor:
        """Return an uninitialised (rows, columns) tensor, valid until the next call.

        Args:
            rows: of the tile.
            columns: of the tile.
            dtype: of the tile.
            offset: of its first byte in the file.
        """
        count = rows * columns * dtype.itemsize
        if len(self._held) < count + 2 * PAGE:
            room = max(count, self._nbytes) + 2 * PAGE
            self._held = torch.empty(room, dtype=torch.uint8, pin_memory=self._pinned)
        # An odd place in the file is none for a number in memory.
        first = offset % PAGE if offset % dtype.itemsize == 0 else 0
        start = -self._held.data_ptr() % PAGE + first
        return self._held[start : start + count].view(dtype).view(rows, columns)
