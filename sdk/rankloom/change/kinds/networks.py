"""Kinds whose delta is a function of the base's weight: DEFT, FRoD, OSF, PEANuT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from rankloom.change.kinds.shapes import require

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Tensors = Mapping[str, torch.Tensor]
    Options = Mapping[str, Any]

ACTIVATIONS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": torch.relu,
    "gelu": functional.gelu,
    "silu": functional.silu,
    "swish": functional.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "linear": lambda values: values,
}


def deft(tensors: Tensors, options: Options, weight: torch.Tensor) -> torch.Tensor:
    """Take a subspace out of W and put trained directions in: ΔW = Q·(scale·R − rightᵀ·W).

    Q and right are P and max(P, 0), or both the orthonormal basis of P. Without R nothing is put
    in.

    Args:
        tensors: ``deft_P`` (out, r), perhaps ``deft_R`` (r, in).
        options: ``method``, ``scale``.
        weight: (out, in).
    """
    p = tensors["deft_P"]
    basis = torch.linalg.qr(p)[0] if options["method"] == "qr" else p
    right = basis if options["method"] == "qr" else torch.relu(p)
    shape = tuple(weight.shape)
    require(weight.ndim == 2 and len(p) == shape[0], f"DEFT has {len(p)} rows, the base {shape}")
    removed = right.T @ weight
    if "deft_R" not in tensors:
        return -basis @ removed
    inserted = tensors["deft_R"]
    require(inserted.shape == removed.shape, f"DEFT has {tuple(inserted.shape)}, the base {shape}")
    scale: float = options["scale"]
    return basis @ (scale * inserted - removed)


def osf(tensors: Tensors, _options: Options, weight: torch.Tensor) -> torch.Tensor:
    """Replace the smallest singular triples of W by trained ones (arXiv 2504.07097).

    Args:
        tensors: ``osf_svd_params.U_low`` (out, n), ``.S_low`` (n,), ``.V_low`` (n, in).
        weight: (out, in).
    """
    u, s, v = (tensors[f"osf_svd_params.{name}_low"] for name in "USV")
    shape = tuple(weight.shape)
    require(shape == (len(u), v.shape[1]), f"OSF is made for {len(u), v.shape[1]}, not {shape}")
    # PEFT decomposes in float32, and training began at exactly those triples.
    triples = torch.linalg.svd(weight.float(), full_matrices=False)
    left, values, right = (part.double() for part in triples)
    kept = len(values) - len(s)
    removed: torch.Tensor = (left[:, kept:] * values[kept:]) @ right[kept:]
    return (u * s) @ v - removed


def peanut(tensors: Tensors, options: Options, weight: torch.Tensor) -> torch.Tensor:
    """ΔW = scale · f(Wᵀ)ᵀ, f a small network with residual connections (arXiv 2410.01870).

    Args:
        tensors: ``peanut_A.weight`` (r, out), ``peanut_B.weight`` (out, r), and for each depth i
            ``peanut_encoders.i.weight``, ``peanut_decoders.i.weight`` (r, r).
        options: ``depth``, ``activation``, ``scale``.
        weight: (out, in).
    """
    activate = ACTIVATIONS[options["activation"]]
    width = tensors["peanut_A.weight"].shape[1]
    shape = tuple(weight.shape)
    require(weight.ndim == 2 and width == shape[0], f"PEANuT has {width} rows, the base {shape}")
    state = activate(weight.T @ tensors["peanut_A.weight"].T)
    skipped = []
    for place in range(options["depth"]):
        skipped.append(state)
        state = activate(state @ tensors[f"peanut_encoders.{place}.weight"].T)
    for place in range(options["depth"]):
        state = activate(state @ tensors[f"peanut_decoders.{place}.weight"].T) + skipped.pop()
    scale: float = options["scale"]
    return scale * (state @ tensors["peanut_B.weight"].T).T


def frod(tensors: Tensors, _options: Options, weight: torch.Tensor) -> torch.Tensor:
    """W′ = U·(S + diag(λ))·Vᵀ, where U holds the directions of the columns of W·V⁻ᵀ.

    Args:
        tensors: ``V`` (in, in), ``indices`` (2, n) and ``frod_lambda_s_values`` (n,) of the sparse
            S, ``frod_lambda_l`` (in,).
        weight: (out, in).
    """
    basis, diagonal = tensors["V"], tensors["frod_lambda_l"]
    shape = tuple(weight.shape)
    fits = weight.ndim == 2 and weight.shape[1] == len(diagonal)
    require(fits, f"FRoD has {len(diagonal)} inputs, but the base has {shape}")
    rows, columns = tensors["indices"].long()
    middle = torch.diag(diagonal)
    values = tensors["frod_lambda_s_values"]
    middle.index_put_((rows, columns), values, accumulate=True)
    return _directions(basis, weight) @ middle @ basis.T - weight


def _directions(basis: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    try:
        columns = torch.linalg.solve(basis, weight.T).T
    except RuntimeError:  # singular
        columns = weight @ torch.linalg.pinv(basis, rtol=1e-6).T
    norms = columns.norm(dim=0)
    found = torch.where(norms > 1e-12, columns / norms, 0.0)
    return found.float().double()  # PEFT keeps them in float32, and trains against those
