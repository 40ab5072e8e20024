"""Reads one tensor of a safetensors file, and no other byte of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from rankloom.change.dtypes import FLOATS
from rankloom.errors import AdapterError, UnsupportedAdapterError

if TYPE_CHECKING:
    from rankloom.tensorfile.header import TensorEntry


def read_tensor(entry: TensorEntry) -> torch.Tensor:
    """Return one tensor of an adapter in its own dtype, on the CPU.

    Raises:
        UnsupportedAdapterError: its dtype is none that we compute with.
        AdapterError: the file ends before the tensor does.
    """
    if entry.dtype not in FLOATS:
        message = f"TEN007 {entry.name} in {entry.path} is {entry.dtype}"
        raise UnsupportedAdapterError(message, hint=f"factors are one of {', '.join(FLOATS)}")
    data = torch.empty(entry.end - entry.start, dtype=torch.uint8)
    if data.numel() == 0:
        return data.view(FLOATS[entry.dtype]).view(entry.shape)
    with entry.path.open("rb", buffering=0) as stream:
        stream.seek(entry.start)
        view = data.numpy().data
        while view and (count := stream.readinto(view)):
            view = view[count:]
    if view:
        message = f"FMT008 {entry.path} ends inside {entry.name}: the file changed meanwhile"
        raise AdapterError(message, hint="pull or copy the adapter again")
    return data.view(FLOATS[entry.dtype]).view(entry.shape)


def read_finite(entry: TensorEntry) -> torch.Tensor:
    """Return one tensor as :func:`read_tensor` does, if every value is a finite number.

    Raises:
        AdapterError: a value is NaN or infinite.
    """
    tensor = read_tensor(entry)
    if not torch.isfinite(tensor).all():
        bad = int((~torch.isfinite(tensor)).sum())
        message = f"NUM001 {entry.name} in {entry.path} has {bad} values that are NaN or infinite"
        raise AdapterError(message, hint="the training run diverged; use an earlier checkpoint")
    return tensor
