"""Changes made by hand from tensors in a file, and what they are by definition."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file

from rankloom.change.formula import Sum, TargetChange, Weighted
from rankloom.tensorfile.header import TensorEntry, read_header

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rankloom.adapter.change import Change


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    """Return standard normal numbers in float32."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def entries(path: Path, **tensors: torch.Tensor) -> Mapping[str, TensorEntry]:
    """Write tensors and return their entries by name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return read_header(path).tensors


def target(name: str, *terms: tuple[float, Change]) -> TargetChange:
    """Return the change of one parameter from weights and changes."""
    module, _, parameter = name.rpartition(".")
    return TargetChange(module, parameter, Sum(tuple(Weighted(*term) for term in terms)))


def base(path: Path, tensors: Mapping[str, torch.Tensor]) -> Path:
    """Write a base without a config: its names are the model's own."""
    path.mkdir(parents=True, exist_ok=True)
    save_file({name: t.contiguous() for name, t in tensors.items()}, path / "model.safetensors")
    return path
