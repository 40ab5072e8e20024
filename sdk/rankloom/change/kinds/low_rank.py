"""Changes that are products of factors, but not the plain ones of a matrix.

A formula here adds what :func:`rankloom.change.kinds.FACTORS` gives as factors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from rankloom_kernels import Term

if TYPE_CHECKING:
    from collections.abc import Mapping

    Tensors = Mapping[str, torch.Tensor]
    Options = Mapping[str, Any]


def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return Σᵣ b[o, r]·a[r, …]: B·A of matrices, and its like for convolutions.

    Semantics: a convolution with A (r, in, *kernel), and then one with B (out, r, 1, …), is one
    with the result, (out, in, *kernel).
    """
    flat: torch.Tensor = b.flatten(1) @ a.flatten(1)
    return flat.view(b.shape[0], *a.shape[1:])


def lora_conv(tensors: Tensors, options: Options, weight: torch.Tensor) -> torch.Tensor:
    """ΔW = s · Σᵣ B[o, r]·A[r, i, …] for a convolution without groups."""
    del weight
    scale: float = options["scale"]
    return product(tensors["a"], tensors["b"]) * scale


def lora_conv_factors(tensors: Tensors, options: Options) -> list[Term]:
    """Return A and B with all axes behind their second one joined to it."""
    return [Term(tensors["b"].flatten(1), tensors["a"].flatten(1), options["scale"])]


def lora_bias(tensors: Tensors, options: Options, weight: torch.Tensor) -> torch.Tensor:
    """Δb = s · (bias of B)."""
    del weight
    scale: float = options["scale"]
    return tensors["bias"] * scale


def bdlora(tensors: Tensors, options: Options, weight: torch.Tensor) -> torch.Tensor:
    """ΔW = s · B·A, one of them block-diagonal."""
    del weight
    [term] = bdlora_factors(tensors, options)
    delta: torch.Tensor = term.b @ term.a
    return delta * term.coefficient


def bdlora_factors(tensors: Tensors, options: Options) -> list[Term]:
    """Return both factors in full: the ``blocks`` parts of ``side`` stand on a diagonal."""
    full = dict(tensors)
    side = options["side"]
    blocks = tensors[side].chunk(options["blocks"])
    full[side] = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
    return [Term(full["b"], full["a"], options["scale"])]
