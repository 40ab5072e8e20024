"""BOFT (arXiv 2311.06243): a product of permuted block rotations, and a factor for each output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from rankloom.change.kinds.rotation import cayley
from rankloom.change.kinds.shapes import require

if TYPE_CHECKING:
    from collections.abc import Mapping


def boft(
    tensors: Mapping[str, torch.Tensor], _options: Mapping[str, Any], weight: torch.Tensor
) -> torch.Tensor:
    """W′ = diag(s)·(Mₙ · … · M₁ · Wᵀ)ᵀ with Mᵢ = Pᵢ·diag(R₁, …)·Pᵢᵀ.

    Args:
        tensors: ``r`` (factors, blocks, b, b), whose skew part Cayley's map makes orthogonal;
            ``s``, one factor for each output in whatever shape.
        weight: (out, in), or of a convolution, whose input is in·height·width.
    """
    r, s = tensors["r"], tensors["s"].flatten()
    flat = weight.flatten(1)
    count, blocks, size, _ = r.shape
    what = f"BOFT is made for ({len(s)}, {blocks * size}), but the base has {tuple(flat.shape)}"
    require(flat.shape == (len(s), blocks * size), what)
    rotated = flat.T
    for number, factor in enumerate(cayley((r - r.mT) / 2)):
        order = _butterfly(number, count, blocks, size)
        sorted_back = torch.empty_like(rotated)
        sorted_back[order] = rotated
        rotated = (factor @ sorted_back.view(blocks, size, -1)).flatten(0, 1)[order]
    return (rotated.T * s[:, None] - flat).view(weight.shape)


def _butterfly(number: int, count: int, blocks: int, size: int) -> torch.Tensor:
    """Return the order P of one factor: row i of P·X is row order[i] of X.

    Groups of 2ⁿ blocks are cut into half blocks, and the even halves go before the odd ones.
    """
    order = torch.arange(blocks * size)
    if count == 1:
        return order
    halves = order.view(blocks >> number, 2 << number, size // 2)
    return torch.cat([halves[:, ::2], halves[:, 1::2]], dim=1).flatten()
