"""What is done to a tensor's values: casts that lose nothing, zeros, and the proof of both."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rankloom.tensorfile.entries import FLOATS
from rankloom.tensorfile.layout import ITEM_BYTES
from rankloom.tensorfile.values import decode

if TYPE_CHECKING:
    import numpy.typing as npt

    from rankloom.repair.draft import Part

WIDENED = FLOATS | {"F8_E4M3", "F8_E5M2"}
"""Dtypes of which float32 holds every value, or of float64 those that it may have."""


def widened(part: Part) -> Part | None:
    """Return a tensor of a dtype of :data:`WIDENED` as float32; ``None`` if it lost something."""
    if part.dtype == "F32":
        return part
    wide = _decoded(part)
    with np.errstate(over="ignore"):
        narrow = wide.astype("<f4")
    if not np.array_equal(narrow.astype(np.float64), wide.astype(np.float64), equal_nan=True):
        return None
    return replace(part, dtype="F32", load=narrow.tobytes)


def fill(part: Part, axis: int, size: int) -> Part:
    """Return a matrix with zeros behind its last row or column."""
    rows, columns = part.shape
    added = (size - rows, columns) if axis == 0 else (rows, size - columns)
    shape = (size, columns) if axis == 0 else (rows, size)
    item = ITEM_BYTES[part.dtype]

    def load() -> bytes:
        raw = np.frombuffer(part.load(), np.uint8).reshape(rows, columns * item)
        zeros = np.zeros((added[0], added[1] * item), np.uint8)
        return np.concatenate([raw, zeros], axis=axis).tobytes()

    return replace(part, shape=shape, load=load)


def same(part: Part) -> bool:
    """Say whether a tensor holds the values of its source, and zeros where that has none."""
    before, after = _source(part), _decoded(part)
    kept = tuple(slice(size) for size in part.source.shape)
    wide, found = before.astype(np.float64), after.astype(np.float64)
    rest = found.copy()
    rest[kept] = 0
    return np.array_equal(found[kept], wide, equal_nan=True) and not rest.any()


def _source(part: Part) -> npt.NDArray[Any]:
    from rankloom.tensorfile.values import load_numpy

    return load_numpy(part.source)


def _decoded(part: Part) -> npt.NDArray[Any]:
    values: npt.NDArray[Any] = decode(memoryview(part.load()), part.dtype)
    return values.reshape(part.shape)
