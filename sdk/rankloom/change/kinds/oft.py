"""OFT (arXiv 2306.07280, parametrised as in arXiv 2506.19847): blocks of the input are rotated."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from rankloom.change.kinds.rotation import cayley, cayley_neumann
from rankloom.change.kinds.shapes import require
from rankloom.errors import UnsupportedAdapterError

if TYPE_CHECKING:
    from collections.abc import Mapping


def oft(
    tensors: Mapping[str, torch.Tensor], options: Mapping[str, Any], weight: torch.Tensor
) -> torch.Tensor:
    """W′ = W·Rᵀ with R = diag(R₁, …, Rₖ).

    Args:
        tensors: ``r`` (blocks, b·(b−1)/2): the upper triangles of skew-symmetric b×b matrices.
        options: ``share``: one block stands for all; ``neumann``: terms of the series, 0 for
            Cayley's map itself; ``eps``: the bound of constrained OFT, or ``None``.
        weight: (out, in), or of a convolution with a 1×1 kernel.

    Raises:
        UnsupportedAdapterError: the convolution's kernel is larger: PEFT trains it on patches that
            overlap, so there is no weight that does what was trained.
    """
    if math.prod(weight.shape[2:]) != 1:
        message = (
            f"CFG012 OFT on a convolution with a kernel of {tuple(weight.shape[2:])}: what PEFT"
            " trains there (overlapping patches, each added up) is no convolution's weight"
        )
        raise UnsupportedAdapterError(message, hint="serve it with PEFT, without merging")
    blocks = _rotations(tensors["r"], options, weight.shape[1])
    rows = weight.view(len(weight), *blocks.shape[:2])
    return (torch.einsum("onk,nck->onc", rows, blocks) - rows).reshape(weight.shape)


def oft_embedding(
    tensors: Mapping[str, torch.Tensor], options: Mapping[str, Any], weight: torch.Tensor
) -> torch.Tensor:
    """W′ = W·R, for an embedding (rows, width); see :func:`oft`."""
    blocks = _rotations(tensors["r"], options, weight.shape[1])
    rows = weight.view(len(weight), *blocks.shape[:2])
    return (torch.einsum("onk,nkc->onc", rows, blocks) - rows).reshape(weight.shape)


def _rotations(packed: torch.Tensor, options: Mapping[str, Any], width: int) -> torch.Tensor:
    """Return the blocks (width / b, b, b)."""
    size = (1 + math.isqrt(1 + 8 * packed.shape[1])) // 2
    skew = _unpack(packed, size)
    if options["eps"] is not None:
        skew = _constrain(skew, options["eps"])
    terms = options["neumann"]
    blocks = cayley_neumann(skew, terms) if terms else cayley(skew)
    if options["share"] and len(blocks) == 1:
        blocks = blocks.expand(width // size, size, size)
    what = f"OFT rotates {len(blocks)} blocks of {size}, but the base's width is {width}"
    require(len(blocks) * size == width, what)
    return blocks


def _unpack(packed: torch.Tensor, size: int) -> torch.Tensor:
    rows, columns = torch.triu_indices(size, size, 1)
    upper = packed.new_zeros(len(packed), size, size)
    upper[:, rows, columns] = packed
    return upper - upper.mT


def _constrain(skew: torch.Tensor, eps: float) -> torch.Tensor:
    """Shrink each block to a Frobenius norm of at most eps/√blocks."""
    bound = eps / math.sqrt(len(skew))
    norms = torch.linalg.matrix_norm(skew, keepdim=True)
    return torch.where(norms <= bound, skew, skew * (bound / norms))
