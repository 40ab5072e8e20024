"""LoHa and LoKr as LyCORIS (arXiv 2309.14859) defines them.

A convolution's weight is (out, in/groups, *kernel); unless the adapter keeps a core for the
kernel, it sees that weight as the matrix (out, in/groups · kernel), which a reshape undoes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from rankloom.change.kinds.reshape import as_weight
from rankloom_kernels import Term

if TYPE_CHECKING:
    from collections.abc import Mapping

    Tensors = Mapping[str, torch.Tensor]
    Options = Mapping[str, Any]
    Sides = tuple[torch.Tensor, torch.Tensor]


def loha(tensors: Tensors, options: Options, weight: torch.Tensor) -> torch.Tensor:
    """ΔW = scale · (W1a·W1b) ∘ (W2a·W2b) (FedPara, arXiv 2108.06098).

    Args:
        tensors: ``hada_w1_a``, ``hada_w2_a`` (out, r); ``hada_w1_b``, ``hada_w2_b`` (r, in).
        options: ``scale``.
        weight: gives the shape.
    """
    first = tensors["hada_w1_a"] @ tensors["hada_w1_b"]
    second = tensors["hada_w2_a"] @ tensors["hada_w2_b"]
    return as_weight(options["scale"] * first * second, weight, "LoHa")


def loha_kernel(tensors: Tensors, options: Options, weight: torch.Tensor) -> torch.Tensor:
    """Do the same for two matrices of kernels, each a core with a factor for either side.

    Args:
        tensors: ``hada_t1``, ``hada_t2`` (r, r, height, width); ``hada_w1_a``, ``hada_w2_a``
            (r, out); ``hada_w1_b``, ``hada_w2_b`` (r, in).
        options: ``scale``.
        weight: gives the shape.
    """
    first, second = (
        _around(tensors[f"hada_t{n}"], tensors[f"hada_w{n}_a"], tensors[f"hada_w{n}_b"])
        for n in (1, 2)
    )
    return as_weight(options["scale"] * first * second, weight, "LoHa")


def loha_factors(tensors: Tensors, options: Options) -> list[Term]:
    """Return (W1a ⋆ W2a)·(W1b ⋆ W2b), ⋆ being all products of a rank of one with one of the other.

    The elementwise product of two matrices of rank r has rank r² at most: as Σᵢ aᵢbᵢ and Σⱼ cⱼdⱼ it
    is Σᵢⱼ (aᵢ ∘ cⱼ)(bᵢ ∘ dⱼ).
    """
    first, second = (
        (tensors[f"hada_w{n}_a"].T, tensors[f"hada_w{n}_b"].flatten(1)) for n in (1, 2)
    )
    return [_pairs(first, second, options)]


def loha_kernel_factors(tensors: Tensors, options: Options) -> list[Term]:
    """Return the same for kernels, of which the core and the input's factor make one side."""
    first, second = (
        (
            tensors[f"hada_w{n}_a"],
            torch.einsum("ijhw,jn->inhw", tensors[f"hada_t{n}"], tensors[f"hada_w{n}_b"]).flatten(
                1
            ),
        )
        for n in (1, 2)
    )
    return [_pairs(first, second, options)]


def _pairs(first: Sides, second: Sides, options: Options) -> Term:
    """Return the factors of a product of two, each given as (r, out) and (r, …)."""
    b, a = (
        (one[:, None] * two[None, :]).flatten(0, 1) for one, two in zip(first, second, strict=True)
    )
    return Term(b.T, a, options["scale"])


def lokr(tensors: Tensors, options: Options, weight: torch.Tensor) -> torch.Tensor:
    """ΔW = scale · W1 ⊗ W2.

    Args:
        tensors: ``lokr_w1`` (l, m) or ``lokr_w1_a`` (l, r), ``lokr_w1_b`` (r, m); ``lokr_w2``
            (k, n, *kernel), or ``lokr_w2_a`` (k, r), ``lokr_w2_b`` (r, n), or these transposed
            around ``lokr_t2`` (r, r, height, width).
        options: ``scale``.
        weight: gives the shape (l·k, m·n, …).
    """
    first = tensors.get("lokr_w1")
    if first is None:
        first = tensors["lokr_w1_a"] @ tensors["lokr_w1_b"]
    second = _second(tensors)
    rows = len(first) * len(second)
    if second.ndim == 4:
        first = first[:, :, None, None]
    elif second.ndim == 3:  # a kernel of one dimension: PEFT multiplies the last two axes instead
        first = first[None]
    return as_weight(options["scale"] * _kron(first, second), weight, "LoKr", rows=rows)


def _kron(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the Kronecker product along every axis (``torch.kron`` fails on some strides)."""
    shape = [one * two for one, two in zip(first.shape, second.shape, strict=True)]
    for axis in range(len(shape)):
        first, second = first.unsqueeze(2 * axis + 1), second.unsqueeze(2 * axis)
    return (first * second).reshape(shape)


def _second(tensors: Tensors) -> torch.Tensor:
    if "lokr_w2" in tensors:
        return tensors["lokr_w2"]
    a, b = tensors["lokr_w2_a"], tensors["lokr_w2_b"]
    return _around(tensors["lokr_t2"], a, b) if "lokr_t2" in tensors else a @ b


def _around(core: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return (out, in, height, width) from (r, r, height, width), (r, out) and (r, in)."""
    return torch.einsum("ijhw,io,jn->onhw", core, a, b)
