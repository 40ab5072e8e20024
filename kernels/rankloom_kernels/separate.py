"""Deltas one by one, for what is no function of their sum."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from rankloom_kernels.backends import triton_refuses

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankloom_kernels.terms import Term


def delta_rows(term: Term, start: int, stop: int) -> torch.Tensor:
    """Return rows ``start`` to ``stop`` of ``coefficient · b @ a``, (rows, in) float32."""
    rows = term.b[start:stop].float() @ term.a.float()
    return rows.mul_(term.coefficient)


def refuses_separate(terms: Sequence[Term], device: torch.device, *, asked: bool) -> str | None:
    """Return why Triton cannot compute these deltas one by one, or ``None``.

    Args:
        terms: of one shape.
        device: where they and the weight should be.
        asked: whether Triton was asked for by name.
    """
    if reason := triton_refuses(device, asked=asked):
        return reason
    if any(factor.dtype == torch.float64 for term in terms for factor in term[:2]):
        return "its kernels compute deltas in float32, and a factor is torch.float64"
    if any(factor.device != device for term in terms for factor in term[:2]):
        return f"a factor is not on {device}"
    from rankloom_kernels.gpu.check import deltas_differ
    from rankloom_kernels.gpu.tables import Job, factor_dtype

    return deltas_differ(device, factor_dtype([Job(terms[0].b, terms[0].b, tuple(terms))]))
