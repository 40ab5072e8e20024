"""Adds low-rank deltas to weights, on the backend that suits."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import torch

from rankloom_kernels import lowrank
from rankloom_kernels.backends import choose, triton_refuses
from rankloom_kernels.gpu.tables import check_apart, dtypes_of, job
from rankloom_kernels.terms import Folded, Term

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankloom_kernels.backends import Backend
    from rankloom_kernels.gpu.tables import Job
    from rankloom_kernels.workspace import Workspace


def merge_(
    weight: torch.Tensor,
    terms: Sequence[Term] | Folded,
    *,
    out: torch.Tensor | None = None,
    accumulate: torch.dtype | None = None,
    workspace: Workspace | None = None,
    backend: Backend | None = None,
) -> torch.Tensor:
    """Add low-rank deltas to a weight in place; every element is rounded once.

    Semantics: ``out ← round(weight + Σ cᵢ · bᵢ @ aᵢ)``. See :func:`rankloom_kernels.lowrank.merge_`
    and :mod:`rankloom_kernels.gpu.low_rank` for what the backends promise.

    Args:
        weight: (out, in); float64, float32, float16 or bfloat16.
        terms: deltas of the same shape on the same device.
        out: where to write, of the same shape and any of these dtypes; default: into ``weight``.
        accumulate: float32 or float64; default: as the terms were folded, else float64 if a
            tensor is float64, else float32.
        workspace: keeps buffers of the torch backend between calls.
        backend: default: Triton on an NVIDIA GPU where it can, else torch.

    Returns:
        ``out``.

    Raises:
        ValueError: shapes differ, or there are no terms.
        TypeError: the weight's or the output's dtype is not one of the four.
        BackendError: the backend that was asked for cannot do it; says why.
    """
    target = weight if out is None else out
    if weight.device.type != "cpu" or backend is not None:
        kernel = OnTriton([weight], [terms], [target], accumulate, asked=backend is not None)
        if choose(backend, {"triton": kernel.refuses, "torch": accepts}) == "triton":
            kernel.run()
            return target
    return lowrank.merge_(weight, terms, out=out, accumulate=accumulate, workspace=workspace)


def merge_many_(
    weights: Sequence[torch.Tensor],
    terms: Sequence[Sequence[Term] | Folded],
    *,
    outs: Sequence[torch.Tensor] | None = None,
    workspace: Workspace | None = None,
    backend: Backend | None = None,
) -> None:
    """Do what :func:`merge_` does for many weights; Triton visits all of them in one launch.

    One launch for each pair of dtypes of weight and output, that is. On Triton, no two outputs may
    share memory.

    Args:
        weights: (outᵢ, inᵢ) each; all on one device.
        terms: for each weight its deltas; none leave it as it is.
        outs: where to write; default: into the weights.
        workspace: as for :func:`merge_`.
        backend: likewise.

    Raises:
        ValueError: numbers or shapes differ, tensors are on several devices, or outputs share
            memory.
        TypeError: a dtype is not float64, float32, float16 or bfloat16.
        BackendError: the backend that was asked for cannot do it; says why.
    """
    targets = list(weights if outs is None else outs)
    triples = list(zip(weights, terms, targets, strict=True))
    kernel = OnTriton(weights, terms, targets, asked=backend is not None)
    if choose(backend, {"triton": kernel.refuses, "torch": accepts}) == "triton":
        kernel.run()
        return
    for weight, some, target in triples:
        if len(some):
            lowrank.merge_(weight, some, out=target, workspace=workspace)
        elif target is not weight:
            target.copy_(weight)


def accepts() -> None:
    """Refuse nothing: torch does everything, and says itself what it cannot."""


class OnTriton:
    """Merges as they are for the kernel.

    Args:
        weights: as of :func:`merge_many_`.
        terms: likewise.
        targets: where to write.
        accumulate: what the caller wants to sum in.
        asked: whether the caller named this backend.
    """

    def __init__(
        self,
        weights: Sequence[torch.Tensor],
        terms: Sequence[Sequence[Term] | Folded],
        targets: Sequence[torch.Tensor],
        accumulate: torch.dtype | None = None,
        *,
        asked: bool,
    ) -> None:
        self._weights, self._terms, self._targets = weights, terms, targets
        folded = {some.dtype for some in terms if isinstance(some, Folded)}
        self._accumulate, self._asked = {accumulate, *folded}, asked

    def refuses(self) -> str | None:
        """Return why the kernel cannot do it, or ``None``.

        Raises:
            ValueError: nothing can, since shapes or devices differ.
        """
        if not self._weights:
            return "there is nothing to do"
        pairs = zip(self._weights, self._targets, strict=True)
        sums = {lowrank.accumulator(weight.dtype, target.dtype) for weight, target in pairs}
        if torch.float64 in self._accumulate | sums:
            return "its kernel sums in float32, and float64 was asked for"
        device = self._weights[0].device
        if reason := triton_refuses(device, asked=self._asked):
            return reason
        from rankloom_kernels.gpu.check import differs

        checks = (differs(device, *dtypes_of(jobs)) for jobs in self._groups)
        return next((reason for reason in checks if reason), None)

    @torch.no_grad()
    def run(self) -> None:
        """Launch the kernel for each group of equal dtypes.

        Raises:
            ValueError: outputs share memory.
        """
        from rankloom_kernels.gpu.low_rank import add_low_rank

        check_apart(self._targets)
        for jobs in self._groups:
            add_low_rank(jobs)

    @cached_property
    def _groups(self) -> list[list[Job]]:
        groups: dict[tuple[torch.dtype, torch.dtype], list[Job]] = {}
        for weight, some, target in zip(self._weights, self._terms, self._targets, strict=True):
            each = [Term(some.b, some.a)] if isinstance(some, Folded) else some
            groups.setdefault((weight.dtype, target.dtype), []).append(job(weight, target, each))
        if len({jobs[0].out.device for jobs in groups.values()}) > 1:
            message = "weights of one call are on several devices"
            raise ValueError(message)
        return list(groups.values())
