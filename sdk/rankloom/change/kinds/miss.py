"""MiSS and Bone (arXiv 2409.15371): one small block is added to every block of the base."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rankloom.change.kinds.shapes import require

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch


def miss(
    tensors: Mapping[str, torch.Tensor], _options: Mapping[str, Any], weight: torch.Tensor
) -> torch.Tensor:
    """ΔW[o, i] = D[i mod r, o mod m].

    Args:
        tensors: ``block`` D (r, m); m is out, or a divisor of it ("mini").
        weight: (out, in), of which only the shape matters.
    """
    block = tensors["block"]
    (out, into), (rank, columns) = weight.shape, block.shape
    what = f"MiSS has a block {tuple(block.shape)}, but the base has {tuple(weight.shape)}"
    require(out % columns == 0 and rank <= into, what)
    return block.T.repeat(out // columns, -(-into // rank))[:, :into]


def miss_bat(
    tensors: Mapping[str, torch.Tensor], _options: Mapping[str, Any], weight: torch.Tensor
) -> torch.Tensor:
    """Each r×r block Wᵢⱼ becomes Wᵢⱼ + Wᵢⱼ·Dᵢ + Dᵢ.

    Args:
        tensors: ``block`` D (out / r, r, r).
        weight: (out, in), both divisible by r.
    """
    block = tensors["block"]
    (out, into), (count, rank, _) = weight.shape, block.shape
    what = f"MiSS has blocks {tuple(block.shape)}, but the base has {tuple(weight.shape)}"
    require(out == count * rank and into % rank == 0, what)
    blocks = weight.view(count, rank, into // rank, rank).transpose(1, 2)
    delta = blocks @ block[:, None] + block[:, None]
    return delta.transpose(1, 2).reshape(weight.shape)
