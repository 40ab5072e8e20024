"""Checkpoints in files of another size than the base's."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from rankloom.apply.steps import ShardPlan, converted, new_layout
from rankloom.tensorfile.layout import ITEM_BYTES, lay_out

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import torch

    from rankloom.apply.placed import Placed
    from rankloom.tensorfile.header import Header, TensorEntry

_SUFFIX = ".safetensors"


def plan_resharded(
    headers: Sequence[Header],
    placed: Mapping[str, Placed],
    dtype: torch.dtype | None,
    shard_bytes: int,
) -> tuple[ShardPlan, ...]:
    """Plan files of another size than the base's.

    Tensors stay in the order of the base's files, and one that is larger than a file has one for
    itself.

    Args:
        headers: headers of the base's files, in order.
        placed: as for :func:`plan_shard`, of all of them.
        dtype: likewise.
        shard_bytes: of tensors in one file at most.
    """
    old = {name: entry for header in headers for name, entry in header.tensors.items()}
    shards: list[list[tuple[str, str, tuple[int, ...]]]] = [[]]
    room = shard_bytes
    for name, code, shape in _new_tensors(headers, placed):
        tensor = name, converted(code, dtype), shape
        nbytes = ITEM_BYTES[tensor[1]] * math.prod(shape)
        if nbytes > room and shards[-1]:
            shards.append([])
            room = shard_bytes
        shards[-1].append(tensor)
        room -= nbytes
    names = shard_names(headers[0].path.name, len(shards))
    metadata = {key: value for header in headers for key, value in header.metadata.items()}
    return tuple(
        _resharded(headers[0].path.with_name(name), tensors, metadata, old, placed)
        for name, tensors in zip(names, shards, strict=True)
    )


def _resharded(
    path: Path,
    tensors: Sequence[tuple[str, str, tuple[int, ...]]],
    metadata: Mapping[str, str],
    old: Mapping[str, TensorEntry],
    placed: Mapping[str, Placed],
) -> ShardPlan:
    prefix, new = lay_out(path, tensors, metadata)
    return ShardPlan(path.name, prefix, tuple(new_layout(old, new, placed)), new)


def _new_tensors(
    headers: Sequence[Header], placed: Mapping[str, Placed]
) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Yield name, dtype code and shape of each tensor, those of a file in the order they lie in."""
    for header in headers:
        own = {item.name: item for item in placed.values() if item.file == header.path}
        for entry in sorted(header.tensors.values(), key=lambda entry: entry.start):
            item = own.pop(entry.name, None)
            yield entry.name, entry.dtype, item.shape if item else entry.shape
        yield from ((item.name, item.dtype, item.shape) for item in own.values())


def shard_names(like: str, count: int) -> tuple[str, ...]:
    """Return the names of several files of one checkpoint, as transformers numbers them.

    Args:
        like: a file of the base, whose first part they share.
        count: how many.
    """
    stem = re.sub(r"-\d{5}(-of-\d{5})?$", "", like.removesuffix(_SUFFIX))
    if count == 1:
        return (stem + _SUFFIX,)
    return tuple(f"{stem}-{n:05}-of-{count:05}{_SUFFIX}" for n in range(1, count + 1))
