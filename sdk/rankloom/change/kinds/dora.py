"""DoRA (arXiv 2402.09353, eq. 5): the direction of W + ΔW at a learned length."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rankloom.change.kinds.low_rank import product
from rankloom.change.kinds.shapes import require

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    Tensors = Mapping[str, torch.Tensor]
    Options = Mapping[str, Any]


def dora(tensors: Tensors, options: Options, weight: torch.Tensor) -> torch.Tensor:
    """W′ = m/‖V‖ · V with V = W + s·B·A; lengths over all inputs of each output.

    Args:
        tensors: ``a``, ``b``, and ``magnitude`` with one length for each output; ``weight``, if
            the file has the layer's own.
        options: ``scale``.
        weight: (out, in), or (out, in, *kernel).
    """
    delta = product(tensors["a"], tensors["b"]) * options["scale"]
    start = tensors.get("weight", weight)
    return _rescaled(start, delta, tensors["magnitude"]) - start


def dora_embedding(tensors: Tensors, options: Options, weight: torch.Tensor) -> torch.Tensor:
    """W′ = m/‖V‖ · V with V = W + s·(B·A)ᵀ; lengths over all rows of each column.

    Args:
        tensors: ``a`` (r, rows), ``b`` (width, r), and ``magnitude`` with one length for each
            column; ``weight``, if the file has the embedding itself.
        options: ``scale``.
        weight: (rows, width).
    """
    start = tensors.get("weight", weight)
    delta = product(tensors["a"], tensors["b"]) * options["scale"]
    return _rescaled(start.T, delta, tensors["magnitude"]).T - start


def _rescaled(weight: torch.Tensor, delta: torch.Tensor, magnitude: torch.Tensor) -> torch.Tensor:
    require(
        weight.shape == delta.shape,
        f"the change is {tuple(delta.shape)}, but the base has {tuple(weight.shape)}",
    )
    changed = weight + delta
    lengths = changed.flatten(1).norm(dim=1)
    factors: torch.Tensor = magnitude.flatten() / lengths
    return factors.view(-1, *[1] * (changed.dim() - 1)) * changed
