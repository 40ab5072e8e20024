"""Positioned reads, writes and copies that move every byte they were asked to, or raise."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from rankloom.errors import BaseError

if TYPE_CHECKING:
    import torch

_NOT_HERE = {errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM}


def view_bytes(tensor: torch.Tensor) -> memoryview:
    """Return the bytes of a contiguous CPU tensor, not copied."""
    import torch

    return tensor.reshape(-1).view(torch.uint8).numpy().data


def read_into(descriptor: int, target: memoryview, offset: int) -> None:
    """Fill ``target`` with the bytes at ``offset``.

    Raises:
        BaseError: the file ends before.
    """
    while target:
        count = os.preadv(descriptor, [target], offset)
        if count == 0:
            message = f"FMT008 a file of the base ends at byte {offset}: it changed meanwhile"
            raise BaseError(message, hint="apply again when nothing writes to the base")
        target, offset = target[count:], offset + count


def write_at(descriptor: int, data: memoryview, offset: int) -> None:
    """Write all of ``data`` at ``offset``."""
    while data:
        count = os.pwrite(descriptor, data, offset)
        data, offset = data[count:], offset + count


def copy_range(source: int, start: int, target: int, offset: int, count: int) -> None:
    """Copy ``count`` bytes between two files, by the kernel where it can.

    Where the file system shares extents this moves no data at all.
    """
    end = start + count
    while start < end:
        step = _copy_step(source, start, target, offset, end - start)
        start, offset = start + step, offset + step


def _copy_step(source: int, start: int, target: int, offset: int, count: int) -> int:
    if hasattr(os, "copy_file_range"):
        try:
            copied = os.copy_file_range(source, target, count, start, offset)
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
        else:
            if copied:
                return copied
    buffer = memoryview(bytearray(min(count, 1 << 20)))
    read_into(source, buffer, start)
    write_at(target, buffer, offset)
    return len(buffer)
