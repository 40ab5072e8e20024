"""Kinds whose delta has a block structure: C3A, GraLoRA, RandLoRA."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from rankloom.change.kinds.reshape import as_weight
from rankloom.change.kinds.shapes import require
from rankloom.errors import AdapterError
from rankloom_kernels import Term

if TYPE_CHECKING:
    from collections.abc import Mapping

    Tensors = Mapping[str, torch.Tensor]
    Options = Mapping[str, Any]


def c3a(tensors: Tensors, _options: Options, weight: torch.Tensor) -> torch.Tensor:
    """Blocks that are circulant matrices: Δ[m·b+t, n·b+q] = kernel[m, n, (q−t) mod b] / in.

    arXiv 2407.19342; computed there as a convolution by Fourier transforms.

    Args:
        tensors: ``c3a_kernel`` (out/b, in/b, b).
        weight: gives the shape (out, in).
    """
    kernel = tensors["c3a_kernel"]
    places = torch.arange(kernel.shape[2])
    blocks = kernel[:, :, (places[None, :] - places[:, None]) % len(places)]
    delta = blocks.permute(0, 2, 1, 3).flatten(2, 3).flatten(0, 1)
    return as_weight(delta / delta.shape[1], weight, "C3A")


def gralora(tensors: Tensors, options: Options, weight: torch.Tensor) -> torch.Tensor:
    """K × k blocks, each with r/k columns of B and rows of A of its own (arXiv 2505.20355).

    Args:
        tensors: ``gralora_A`` (k, in/k, r), ``gralora_B`` (k, r, out/k); the ordinary factors
            ``gralora_A_general.weight`` (h, in), ``gralora_B_general.weight`` (out, h) if any.
        options: ``scale``.
        weight: gives the shape (out, in).
    """
    delta = sum(coefficient * (b @ a) for b, a, coefficient in gralora_factors(tensors, options))
    assert isinstance(delta, torch.Tensor)  # noqa: S101 - there is at least one
    return as_weight(delta, weight, "GraLoRA")


def gralora_factors(tensors: Tensors, options: Options) -> list[Term]:
    """Return the blocks as factors of rank k·r: r for each block column; and the ordinary ones."""
    a, b = tensors["gralora_A"], tensors["gralora_B"]
    count, rank = len(a), a.shape[2] // len(a)
    rows = torch.block_diag(*a.mT)  # type: ignore[no-untyped-call]
    # b[j, n, q, o]: block row j, its rank q for block column n. Row n·r + j·r/k + q of A is what
    # block column n gives to block row j, so that B has nothing in other block rows there.
    columns = a.new_zeros(count, b.shape[2], count, count, rank)
    for row in range(count):
        columns[row, :, :, row] = b[row].view(count, rank, -1).permute(2, 0, 1)
    terms = [Term(columns.flatten(2).flatten(0, 1), rows, options["scale"])]
    if "gralora_A_general.weight" in tensors:
        general = tensors["gralora_B_general.weight"], tensors["gralora_A_general.weight"]
        terms.append(Term(*general, options["scale"]))
    return terms


def randlora(tensors: Tensors, options: Options, weight: torch.Tensor) -> torch.Tensor:
    """Σ over bases of fixed random matrices, scaled by what was trained (arXiv 2502.00987).

    Args:
        tensors: ``A`` (r, 1, ≥ smaller side), ``B`` (≥ larger side, ≥ bases, r), shared;
            ``randlora_lambda`` (r, bases), ``randlora_gamma`` (bases, smaller side); ``own.A`` and
            ``own.B``, if the module has copies.
        options: ``scale``.
        weight: gives the shape (out, in).
    """
    _check_copies(tensors)
    factors, gamma = tensors["randlora_lambda"], tensors["randlora_gamma"]
    bases, small = gamma.shape
    large = max(weight.shape)
    fits = weight.ndim == 2 and min(weight.shape) == small and large <= len(tensors["B"])
    shape = tuple(weight.shape)
    require(fits, f"RandLoRA is made for a smaller side of {small}, but the base has {shape}")
    a = (factors[:, :, None] * tensors["A"][:, :, :small] * gamma).flatten(0, 1)
    # PEFT orders the columns of B by base, the rows of A by rank: the trained values expect that.
    scale: float = options["scale"]
    delta = scale * (tensors["B"][:large, :bases].flatten(1) @ a)
    return delta if weight.shape[1] == small else delta.T


def _check_copies(tensors: Tensors) -> None:
    """Refuse a file whose modules hold other projections than the shared ones (PEFT takes one)."""
    for name in "AB":
        own = tensors.get(f"own.{name}")
        if own is not None and not torch.equal(own, tensors[name]):
            message = f"TEN009 a module's copy of randlora_{name} is not the shared randlora_{name}"
            raise AdapterError(message, hint="save the adapter again with PEFT")
