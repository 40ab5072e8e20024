"""Lays out a new safetensors file: header bytes, and where each tensor will lie."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

from rankloom.tensorfile.header import Header, TensorEntry

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
    "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4,
    "I64": 8, "U64": 8, "F64": 8, "C64": 8,
}  # fmt: skip
"""Bytes of one element by safetensors code."""


def lay_out(
    path: Path,
    tensors: Iterable[tuple[str, str, tuple[int, ...]]],
    metadata: Mapping[str, str],
) -> tuple[bytes, Header]:
    """Return the first bytes of a file and its header as a reader will see it.

    Tensors lie in the order that safetensors' own writer uses (wider dtypes first, then by name),
    so every tensor is aligned and the same tensors give the same bytes.

    Args:
        path: where the file will be.
        tensors: name, dtype code and shape of each.
        metadata: the header's ``__metadata__``; empty: left out.
    """
    ordered = sorted(tensors, key=lambda item: (-ITEM_BYTES[item[1]], item[0]))
    listed: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    position = 0
    for name, dtype, shape in ordered:
        size = ITEM_BYTES[dtype] * math.prod(shape)
        span = [position, position + size]
        listed[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": span}
        position += size
    text = json.dumps(listed, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    prefix = len(text).to_bytes(8, "little") + text
    return prefix, Header(path, _entries(path, ordered, len(prefix)), dict(metadata))


def _entries(
    path: Path, ordered: list[tuple[str, str, tuple[int, ...]]], position: int
) -> dict[str, TensorEntry]:
    entries = {}
    for name, dtype, shape in ordered:
        end = position + ITEM_BYTES[dtype] * math.prod(shape)
        entries[name] = TensorEntry(path, name, dtype, shape, position, end)
        position = end
    return entries
