"""A base model as a value: its config and the headers of its tensors, without their bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rankloom.tensorfile.header import TensorEntry


@dataclass(frozen=True, slots=True)
class BaseTensor:
    """Where one target's parameter lies on disk.

    Attributes:
        entry: the tensor's header; ``entry.name`` is its name on disk.
        transposed: stored as (in, out), as transformers' ``Conv1D`` does, so a delta (out, in) is
            added transposed.
    """

    entry: TensorEntry
    transposed: bool = False


@dataclass(frozen=True, slots=True)
class Base:
    """A base model.

    Attributes:
        path: its folder; for a base known only by the registry's record, an empty path.
        config: content of ``config.json``.
        tensors: header of every tensor by its name on disk.
        files: its safetensors files in name order; empty for a base known only by record.
    """

    path: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorEntry]
    files: tuple[Path, ...] = ()
