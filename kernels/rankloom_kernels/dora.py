"""Gives W + ΔW a learned length: DoRA (arXiv 2402.09353, eq. 5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from rankloom_kernels.backends import accepts, choose
from rankloom_kernels.gpu.tables import dtypes_of
from rankloom_kernels.lowrank import merge_reference
from rankloom_kernels.merge import OnTriton
from rankloom_kernels.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankloom_kernels.backends import Backend
    from rankloom_kernels.terms import Term


@torch.no_grad()
def dora_(
    weight: torch.Tensor,
    terms: Sequence[Term],
    magnitude: torch.Tensor,
    *,
    out: torch.Tensor | None = None,
    workspace: Workspace | None = None,
    backend: Backend | None = None,
) -> torch.Tensor:
    """Replace a weight by its sum with deltas, each row brought to a length; one rounding.

    Semantics: ``out ← round(mᵢ / ‖Vᵢ‖ · Vᵢ)`` for each row i of ``V = weight + Σ cᵢ · bᵢ @ aᵢ``. A
    row of V that is 0 has no direction and becomes NaN.

    Torch computes V in float64. Triton computes it in float32 and a length in float64 from float32
    sums of 128 squares; it reads the weight twice, the second time mostly from the L2 cache.

    Args:
        weight: (out, in); float64, float32, float16 or bfloat16. Each row is an output.
        terms: deltas of the same shape on the same device.
        magnitude: (out,), the lengths, of any floating dtype.
        out: where to write, of the same shape and any of these dtypes; default: into ``weight``.
        workspace: keeps buffers of the torch backend between calls.
        backend: default: Triton on an NVIDIA GPU where it can, else torch.

    Returns:
        ``out``.

    Raises:
        ValueError: shapes or devices differ.
        TypeError: the weight's or the output's dtype is not one of the four.
        BackendError: the backend that was asked for cannot do it; says why.
    """
    target = weight if out is None else out
    if magnitude.shape != weight.shape[:1]:
        message = f"magnitude {tuple(magnitude.shape)} for a weight {tuple(weight.shape)}"
        raise ValueError(message)
    kernel = OnTriton([weight], [terms], [target], asked=backend is not None)

    def refuses() -> str | None:
        if reason := kernel.refuses():
            return reason
        is_by_rows = kernel.jobs[0].out.shape == target.shape and target.stride(-1) == 1
        if not is_by_rows:
            return "its kernel needs rows that are contiguous"
        from rankloom_kernels.gpu.check import dora_differs

        return dora_differs(weight.device, dtypes_of(kernel.jobs))

    if choose(backend, {"triton": refuses, "torch": accepts}) == "triton":
        from rankloom_kernels.gpu.dora import give_length

        give_length(kernel.jobs[0], magnitude)
        return target
    workspace = workspace or Workspace()
    height = workspace.rows(weight.shape[1], torch.float64)
    for start in range(0, weight.shape[0], height):
        rows = slice(start, start + height)
        part = weight[rows]
        total = workspace.tile(len(part), part.shape[1], torch.float64, weight.device).copy_(part)
        for b, a, coefficient in terms:
            total.addmm_(b[rows].double(), a.double(), alpha=coefficient)
        factor = magnitude[rows].double() / torch.linalg.vector_norm(total, dim=1)
        target[rows].copy_(total.mul_(factor[:, None]))
    return target


def dora_reference(
    weight: torch.Tensor, terms: Sequence[Term], magnitude: torch.Tensor
) -> torch.Tensor:
    """Return ``m / ‖V‖ · V`` in float64, written as the formula reads.

    The truth that :func:`dora_` is tested against; it materialises every delta.
    """
    total = merge_reference(weight, terms)
    length = torch.linalg.vector_norm(total, dim=1, keepdim=True)
    scaled: torch.Tensor = magnitude.double()[:, None] / length * total
    return scaled
