"""HRA (arXiv 2405.17484): the input passes through a chain of Householder reflections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from rankloom.change.kinds.shapes import require
from rankloom.errors import AdapterError

if TYPE_CHECKING:
    from collections.abc import Mapping

_NOISE = 2.0**-20
"""Share of a direction below which float32, in which it was trained, has only rounding errors."""


def hra(
    tensors: Mapping[str, torch.Tensor], options: Mapping[str, Any], weight: torch.Tensor
) -> torch.Tensor:
    """W′ = W·H₁·…·Hᵣ with Hᵢ = I − 2uᵢuᵢᵀ/‖uᵢ‖².

    Args:
        tensors: ``u`` (in, r).
        options: ``gram_schmidt``: the directions are made orthogonal first.
        weight: (out, in), or of a convolution, whose input is in·height·width.

    Raises:
        AdapterError: a direction has no length, or none beside those before it.
    """
    directions, flat = tensors["u"], weight.flatten(1)
    what = f"HRA reflects {len(directions)} inputs, but the base has {tuple(flat.shape)}"
    require(len(directions) == flat.shape[1], what)
    reflected, done = flat.clone(), list[torch.Tensor]()
    for direction in directions.T:
        unit = direction
        if options["gram_schmidt"]:
            for earlier in done:
                unit = unit - (earlier @ unit) * earlier
        length = torch.linalg.vector_norm(unit)
        # What is left of one that depends on those before it is noise, whose direction is chance.
        if length <= _NOISE * torch.linalg.vector_norm(direction):
            message = "NUM001 HRA: a direction is zero or depends on others, so it reflects nothing"
            raise AdapterError(message, hint="the training run diverged; use an earlier checkpoint")
        unit = unit / length
        done.append(unit)
        reflected -= torch.outer(reflected @ unit, 2 * unit)
    return (reflected - flat).view(weight.shape)
