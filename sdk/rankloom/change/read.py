"""Reads one tensor of a safetensors file, and no other byte of it."""

from __future__ import annotations

import math
import os
from itertools import product
from operator import mul
from typing import TYPE_CHECKING

import torch

from rankloom.change.dtypes import FLOATS, INTEGERS
from rankloom.errors import AdapterError, UnsupportedAdapterError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rankloom.tensorfile.header import TensorEntry


_KNOWN = FLOATS | INTEGERS


def read_tensor(entry: TensorEntry, rows: range | None = None) -> torch.Tensor:
    """Return one tensor of an adapter, or some rows of it, in its own dtype, on the CPU.

    Args:
        entry: the tensor.
        rows: a range of its first axis.

    Raises:
        UnsupportedAdapterError: its dtype is none that we compute with.
        AdapterError: the file ends before the tensor does.
    """
    dtype = _KNOWN.get(entry.dtype)
    if dtype is None:
        message = f"TEN007 {entry.name} in {entry.path} is {entry.dtype}"
        raise UnsupportedAdapterError(message, hint=f"factors are one of {', '.join(FLOATS)}")
    if rows is None:
        return _read(entry, 0, entry.nbytes).view(dtype).view(entry.shape)
    width = entry.nbytes // max(1, entry.shape[0])
    span = range(min(rows), max(rows) + 1) if rows else range(0)
    data = _read(entry, span.start * width, len(span) * width).view(dtype)
    return data.view(len(span), *entry.shape[1:])[:: rows.step]


def _read(entry: TensorEntry, offset: int, count: int) -> torch.Tensor:
    data = torch.empty(count, dtype=torch.uint8)
    with entry.path.open("rb", buffering=0) as stream:
        stream.seek(entry.start + offset)
        view = data.numpy().data
        while view and (done := stream.readinto(view)):
            view = view[done:]
    if view:
        message = f"FMT008 {entry.path} ends inside {entry.name}: it changed meanwhile"
        raise AdapterError(message, hint="pull or copy the adapter again")
    return data


def read_box(entry: TensorEntry, box: Sequence[range]) -> torch.Tensor:
    """Return a box of a tensor in its own dtype, reading hardly more than that.

    Args:
        entry: the tensor.
        box: a range without steps on each axis.

    Raises:
        AdapterError: the file ends before the tensor does.
    """
    dtype, shape = _KNOWN[entry.dtype], entry.shape
    found = torch.empty([len(span) for span in box], dtype=dtype)
    if len(box) > 1 and len(box[-1]) == shape[-1]:  # whole rows lie together
        *box, rows, columns = box
        width = len(columns)
        box = (*box, range(rows.start * width, rows.stop * width))
        shape = (*shape[:-2], shape[-2] * width)
    runs = found.reshape(-1, len(box[-1]) if box else 1).view(torch.uint8).numpy()
    with entry.path.open("rb", buffering=0) as stream:
        for run, start in zip(runs, _starts(shape, box), strict=True):
            offset = entry.start + start * dtype.itemsize
            if os.preadv(stream.fileno(), [run.data], offset) != len(run):
                message = f"FMT008 {entry.path} ends inside {entry.name}: it changed meanwhile"
                raise AdapterError(message, hint="pull or copy the adapter again")
    return found


def _starts(shape: Sequence[int], box: Sequence[range]) -> Iterator[int]:
    """Yield the number of the first element of each run of a box."""
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    firsts = [*box[:-1], box[-1][:1]] if box else []
    for place in product(*firsts):
        yield sum(map(mul, place, strides))


def read_doubles(entry: TensorEntry, rows: range | None = None) -> torch.Tensor:
    """Return one tensor, or some rows, in float64: floats if they are finite, integers too.

    Raises:
        UnsupportedAdapterError: its dtype is none that we compute with.
        AdapterError: a value is NaN or infinite, or the file ends before the tensor does.
    """
    return read_finite(entry, rows).double()


def read_finite(entry: TensorEntry, rows: range | None = None) -> torch.Tensor:
    """Return what :func:`read_tensor` does, if every value is a finite number.

    Raises:
        AdapterError: a value is NaN or infinite.
    """
    tensor = read_tensor(entry, rows)
    if not all_finite(tensor):
        bad = int((~torch.isfinite(tensor)).sum())
        message = f"NUM001 {entry.name} in {entry.path} has {bad} values that are NaN or infinite"
        raise AdapterError(message, hint="the training run diverged; use an earlier checkpoint")
    return tensor


def all_finite(values: torch.Tensor) -> bool:
    """Tell whether no value is NaN or infinite.

    A finite sum has finite summands only. It takes a twentieth of the time of a look at each, which
    is left for sums that overflow.
    """
    return math.isfinite(values.sum()) or bool(torch.isfinite(values).all())


def as_bytes(tensor: torch.Tensor) -> memoryview:
    """Return the bytes of a tensor as a file holds them."""
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
