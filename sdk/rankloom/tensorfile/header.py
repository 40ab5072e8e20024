"""The header of a safetensors file (format: https://github.com/huggingface/safetensors)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of a file, not loaded.

    Attributes:
        path: the file that holds the bytes.
        name: its key in the file.
        dtype: safetensors code (``"F32"``, ``"BF16"``, …).
        shape: sizes, outermost first.
        start: offset of its first byte in the file.
        end: offset behind its last byte in the file.
    """

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """All tensors of one file, in key order as the file lists them, and its metadata."""

    path: Path
    tensors: Mapping[str, TensorEntry]
    metadata: Mapping[str, str]
