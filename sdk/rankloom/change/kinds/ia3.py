"""(IA)³ (arXiv 2205.05638): learned vectors multiply the input or the output of a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rankloom.change.kinds.shapes import require

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch


def ia3_output(
    tensors: Mapping[str, torch.Tensor], _options: Mapping[str, Any], weight: torch.Tensor
) -> torch.Tensor:
    """W′ = diag(l)·W, and the same for a bias.

    Args:
        tensors: ``l``, one factor for each output in whatever shape.
        weight: (out, …).
    """
    factors = tensors["l"].flatten()
    what = f"(IA)³ scales {len(factors)} outputs, but the base has {tuple(weight.shape)}"
    require(len(factors) == weight.shape[0], what)
    return weight * (factors - 1).view(-1, *[1] * (weight.dim() - 1))


def ia3_input(
    tensors: Mapping[str, torch.Tensor], _options: Mapping[str, Any], weight: torch.Tensor
) -> torch.Tensor:
    """W′ = W·diag(l); in a convolution with groups each group has its own part of l.

    Args:
        tensors: ``l``, one factor for each input in whatever shape.
        weight: (out, in / groups, …).
    """
    factors = tensors["l"].flatten()
    out, per_group = weight.shape[:2]
    groups = len(factors) // per_group
    what = f"(IA)³ scales {len(factors)} inputs, but the base has {tuple(weight.shape)}"
    require(groups * per_group == len(factors) and groups > 0 and out % groups == 0, what)
    rows = (factors - 1).view(groups, per_group).repeat_interleave(out // groups, dim=0)
    return weight * rows.view(*rows.shape, *[1] * (weight.dim() - 2))
