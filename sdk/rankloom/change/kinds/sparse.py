"""Kinds that add to single elements of the weight, or to its bias."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from rankloom.change.kinds.shapes import require

if TYPE_CHECKING:
    from collections.abc import Mapping

    Tensors = Mapping[str, torch.Tensor]
    Options = Mapping[str, Any]


def shira(tensors: Tensors, _options: Options, weight: torch.Tensor) -> torch.Tensor:
    """Δ[rowᵢ, columnᵢ] = valueᵢ (arXiv 2406.13175).

    Args:
        tensors: ``shira_indices`` (2, n), ``shira_weight`` (n,).
        weight: gives the shape (out, in).
    """
    rows, columns = tensors["shira_indices"].long()
    fits = weight.ndim == 2 and _within(rows, len(weight)) and _within(columns, weight.shape[1])
    require(fits, f"SHiRA names elements that a base of shape {tuple(weight.shape)} lacks")
    delta = torch.zeros_like(weight)
    return delta.index_put_((rows, columns), tensors["shira_weight"], accumulate=True)


def supertuning(tensors: Tensors, options: Options, weight: torch.Tensor) -> torch.Tensor:
    """Δ[placeᵢ] = valueᵢ, counted row by row, plus scale · B·A if the adapter has factors.

    Args:
        tensors: ``supertuning_indices``, ``supertuning_values`` (n,); perhaps
            ``supertuning_lora_A.weight`` (r, in), ``supertuning_lora_B.weight`` (out, r).
        options: ``scale``.
        weight: gives the shape (out, in).
    """
    places = tensors["supertuning_indices"].long()
    shape = tuple(weight.shape)
    require(_within(places, weight.numel()), f"the adapter names elements that {shape} lacks")
    values = tensors["supertuning_values"]
    delta = torch.zeros_like(weight).flatten().index_add_(0, places, values).view(weight.shape)
    if "supertuning_lora_A.weight" not in tensors:
        return delta
    product = tensors["supertuning_lora_B.weight"] @ tensors["supertuning_lora_A.weight"]
    require(product.shape == weight.shape, f"the adapter is made for {tuple(product.shape)}")
    scale: float = options["scale"]
    return delta + scale * product


def _within(places: torch.Tensor, size: int) -> bool:
    return bool(((places >= 0) & (places < size)).all())


def beft(tensors: Tensors, _options: Options, weight: torch.Tensor) -> torch.Tensor:
    """Δb = the trained vector (arXiv 2509.15974).

    Args:
        tensors: ``beft_bias`` (1, out).
        weight: the bias (out,).
    """
    delta = tensors["beft_bias"].flatten()
    require(delta.shape == weight.shape, f"the bias has {tuple(weight.shape)}, not {len(delta)}")
    return delta
