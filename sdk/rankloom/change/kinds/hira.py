"""HiRA (openreview TwJrTz9cRS): a low-rank matrix multiplies the base element by element."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rankloom.change.kinds.shapes import require

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch


def hira(
    tensors: Mapping[str, torch.Tensor], _options: Mapping[str, Any], weight: torch.Tensor
) -> torch.Tensor:
    r"""W′ = W + W ∘ (B·A).

    Args:
        tensors: ``a`` (r, in, \*kernel), ``b`` (out, r, 1, …).
        weight: (out, in, \*kernel).
    """
    a, b = tensors["a"], tensors["b"].flatten(1)
    shape = (len(b), *a.shape[1:])
    what = f"HiRA is made for {shape}, but the base has {tuple(weight.shape)}"
    require(tuple(weight.shape) == shape, what)
    return weight * (b @ a.flatten(1)).view(shape)


def hira_embedding(
    tensors: Mapping[str, torch.Tensor], _options: Mapping[str, Any], weight: torch.Tensor
) -> torch.Tensor:
    """W′ = W + W ∘ (B·A)ᵀ.

    Args:
        tensors: ``a`` (r, rows), ``b`` (width, r).
        weight: (rows, width).
    """
    factor = (tensors["b"] @ tensors["a"]).T
    what = f"HiRA is made for {tuple(factor.shape)}, but the base has {tuple(weight.shape)}"
    require(weight.shape == factor.shape, what)
    return weight * factor
