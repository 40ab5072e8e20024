"""Kinds for which PEFT takes something off the base first, which follows from the base itself.

PEFT decomposes in float32; what it takes off is determined by the base only where that can tell
the components that are taken from those that stay. The decomposition here is the same one, in
float32: where two singular values are close, one in float64 is off by 1e-5 of PEFT's base, the
same one by 2e-7 (300 random matrices of 16 by 24). Everything else is float64.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from rankloom.change.kinds.shapes import require
from rankloom.errors import IncompatibleError

if TYPE_CHECKING:
    from collections.abc import Mapping

    Tensors = Mapping[str, torch.Tensor]
    Options = Mapping[str, Any]

_SAME = 32 * torch.finfo(torch.float32).eps
"""Share of the largest singular value below which float32 cannot tell two of them apart."""


def pissa(tensors: Tensors, options: Options, weight: torch.Tensor) -> torch.Tensor:
    """W′ = W − U·S·Vᵀ of the r largest singular values + s·B·A (arXiv 2404.02948, eq. 2 to 4)."""
    delta: torch.Tensor = (tensors["b"] @ tensors["a"]) * options["scale"]
    rank = tensors["a"].shape[0]
    _require(weight, delta, rank)
    u, s, v = _svd(weight)
    _require_gap(s, rank)
    taken: torch.Tensor = (u[:, :rank] * s[:rank]) @ v[:rank]
    return delta - taken


def olora(tensors: Tensors, options: Options, weight: torch.Tensor) -> torch.Tensor:
    """W′ = W − s·Qᵣ·Rᵣ + s·B·A, with W = Q·R (arXiv 2406.01775, algorithm 1).

    Qᵣ·Rᵣ is the projection of W on its first r columns.
    """
    delta: torch.Tensor = (tensors["b"] @ tensors["a"]) * options["scale"]
    rank = tensors["a"].shape[0]
    _require(weight, delta, rank)
    q, r = torch.linalg.qr(weight[:, :rank])
    _require_independent(r)
    taken: torch.Tensor = q @ (q.T @ weight)
    scale: float = options["scale"]
    return delta - scale * taken


def kasa(tensors: Tensors, options: Options, weight: torch.Tensor) -> torch.Tensor:
    """W′ = W − U·S·Vᵀ of the r smallest singular values + s·B·diag(d)·A (arXiv 2412.06071).

    Args:
        tensors: ``a``, ``b``, and ``diagonal``.
        options: ``scale``; ``truncates``: W still has those singular values.
        weight: (out, in).
    """
    delta: torch.Tensor = ((tensors["b"] * tensors["diagonal"]) @ tensors["a"]) * options["scale"]
    if not options["truncates"]:
        return delta
    rank = tensors["a"].shape[0]
    _require(weight, delta, rank)
    u, s, v = _svd(weight)
    kept = len(s) - rank
    require(kept > 0, f"KaSA with rank {rank} leaves nothing of a base of {tuple(weight.shape)}")
    _require_gap(s, kept)
    taken: torch.Tensor = (u[:, kept:] * s[kept:]) @ v[kept:]
    return delta - taken


def _svd(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    u, s, v = torch.linalg.svd(weight.float(), full_matrices=False)
    return u.double(), s.double(), v.double()


def _require(weight: torch.Tensor, delta: torch.Tensor, rank: int) -> None:
    fits = weight.shape == delta.shape and rank <= min(weight.shape)
    what = f"a change of {tuple(delta.shape)} with rank {rank} meets {tuple(weight.shape)}"
    require(fits, what)


def _require_gap(values: torch.Tensor, count: int) -> None:
    """Refuse a base whose ``count``-th singular value is that of the next one, and not zero."""
    if count == len(values):
        return
    smallest = _SAME * values[0]
    if values[count - 1] - values[count] <= smallest < values[count - 1]:
        _undetermined(f"singular values {count} and {count + 1} are equal in float32")


def _require_independent(triangle: torch.Tensor) -> None:
    lengths = triangle.diagonal().abs()
    if (lengths <= _SAME * triangle.abs().max()).any():
        _undetermined(f"its first {len(lengths)} columns depend on each other")


def _undetermined(why: str) -> None:
    message = f"CFG010 what the initialisation took off the base is not determined by it: {why}"
    hint = "save the adapter with path_initial_model_for_weight_conversion, which makes it LoRA"
    raise IncompatibleError(message, hint=hint)
