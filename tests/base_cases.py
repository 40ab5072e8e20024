"""Targets that mean a parameter by its name, and parameters put together from their pieces."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open

from rankloom.adapter.change import LowRank, Replacement, Target
from rankloom.tensorfile.header import TensorEntry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankloom.base.model import Piece


def entry(*shape: int) -> TensorEntry:
    return TensorEntry(Path(), "", "F32", shape, 0, 0)


def as_delta(name: str, rows: int, columns: int) -> Target:
    module, _, parameter = name.rpartition(".")
    return Target(module, "lora", LowRank(entry(1, columns), entry(rows, 1), 1.0), parameter)


def as_value(name: str, shape: Sequence[int]) -> Target:
    module, _, parameter = name.rpartition(".")
    return Target(module, "saved", Replacement(entry(*shape)), parameter)


@cache
def stored(path: Path, name: str) -> torch.Tensor:
    with safe_open(path, "pt") as file:
        return file.get_tensor(name)


def assembled(pieces: Sequence[Piece], shape: Sequence[int]) -> torch.Tensor:
    """Build a parameter from its pieces; what no piece covers stays NaN."""
    whole = torch.full(tuple(shape), torch.nan)
    for piece in pieces:
        values = stored(piece.entry.path, piece.entry.name)[piece.region]
        whole[piece.part] = values.mT if piece.transposed else values
    return whole
