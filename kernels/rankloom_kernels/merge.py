"""Adds low-rank deltas to weights, on the backend that suits."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch

from rankloom_kernels import lowrank
from rankloom_kernels.backends import accepts, choose, triton_refuses
from rankloom_kernels.gpu.tables import check_apart, dtypes_of, job, ready
from rankloom_kernels.strict import exact_parts, merge_in_order_
from rankloom_kernels.terms import Folded, Term

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankloom_kernels.backends import Backend
    from rankloom_kernels.gpu.tables import Job
    from rankloom_kernels.workspace import Workspace

Numerics: TypeAlias = Literal["fast", "strict"]
"""How sums are formed: however it is fastest, or with the same bits everywhere."""


def merge_(
    weight: torch.Tensor,
    terms: Sequence[Term] | Folded,
    *,
    out: torch.Tensor | None = None,
    accumulate: torch.dtype | None = None,
    workspace: Workspace | None = None,
    numerics: Numerics = "fast",
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
        numerics: ``fast``, or ``strict`` for the same bits on every device and backend, which
            takes a pass for each rank; see :mod:`rankloom_kernels.strict`.
        backend: default: Triton on an NVIDIA GPU where it can, else torch.

    Returns:
        ``out``.

    Raises:
        ValueError: shapes differ, there are no terms, or ``accumulate`` is given for strict sums.
        TypeError: the weight's or the output's dtype is not one of the four; or a factor's dtype
            is float64, or the terms are folded, and strict sums are asked for.
        BackendError: the backend that was asked for cannot do it; says why.
    """
    target = weight if out is None else out
    if numerics == "strict":
        if accumulate is not None:
            message = f"strict sums are float64 sums, and {accumulate} was asked for"
            raise ValueError(message)
        merge_many_([weight], [terms], outs=[target], numerics=numerics, backend=backend)
        return target
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
    numerics: Numerics = "fast",
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
        numerics: likewise.
        backend: likewise.

    Raises:
        ValueError: numbers or shapes differ, tensors are on several devices, or outputs share
            memory.
        TypeError: as of :func:`merge_`.
        BackendError: the backend that was asked for cannot do it; says why.
    """
    targets = list(weights if outs is None else outs)
    if numerics == "strict":
        terms = [exact_parts(some) for some in terms]
    kernel = OnTriton(weights, terms, targets, numerics=numerics, asked=backend is not None)
    if choose(backend, {"triton": kernel.refuses, "torch": accepts}) == "triton":
        kernel.run()
        return
    for weight, some, target in zip(weights, terms, targets, strict=True):
        if numerics == "strict" and not isinstance(some, Folded):
            merge_in_order_(weight, some, target)
        elif len(some):
            lowrank.merge_(weight, some, out=target, workspace=workspace)
        elif target is not weight:
            target.copy_(weight)


class OnTriton:
    """Merges as they are for a kernel.

    Args:
        weights: as of :func:`merge_many_`.
        terms: likewise; for strict sums, of :func:`~rankloom_kernels.strict.exact_parts`.
        targets: where to write.
        accumulate: what the caller wants to sum in.
        numerics: as of :func:`merge_many_`.
        asked: whether the caller named this backend.
    """

    def __init__(
        self,
        weights: Sequence[torch.Tensor],
        terms: Sequence[Sequence[Term] | Folded],
        targets: Sequence[torch.Tensor],
        accumulate: torch.dtype | None = None,
        *,
        numerics: Numerics = "fast",
        asked: bool,
    ) -> None:
        self._weights, self._terms, self._targets = weights, terms, targets
        folded = {some.dtype for some in terms if isinstance(some, Folded)}
        self._accumulate, self._asked = {accumulate, *folded}, asked
        self._is_strict = numerics == "strict"

    def refuses(self) -> str | None:
        """Return why the kernel cannot do it, or ``None``.

        Raises:
            ValueError: nothing can, since shapes or devices differ.
            TypeError: nothing can, since a dtype is none that deltas are added to.
        """
        if not self._weights:
            return "there is nothing to do"
        pairs = zip(self._weights, self._targets, strict=True)
        sums = {lowrank.accumulator(weight.dtype, target.dtype) for weight, target in pairs}
        if torch.float64 in self._accumulate | sums and not self._is_strict:
            return "its kernel sums in float32, and float64 was asked for"
        device = self._weights[0].device
        if reason := triton_refuses(device, asked=self._asked):
            return reason
        from rankloom_kernels.gpu.check import differs, differs_in_order

        found = (
            differs_in_order(device, *dtypes_of(jobs)[:2])
            if self._is_strict
            else differs(device, *dtypes_of(jobs))
            for jobs in self._groups
        )
        return next((reason for reason in found if reason), None)

    @torch.no_grad()
    def run(self) -> None:
        """Launch the kernel for each group of equal dtypes.

        Raises:
            ValueError: outputs share memory.
        """
        from rankloom_kernels.gpu.low_rank import add_low_rank
        from rankloom_kernels.gpu.strict import add_in_order

        check_apart(self._targets)
        for jobs in self._groups:
            if self._is_strict:
                add_in_order([ready(item, torch.float32) for item in jobs])
            else:
                add_low_rank(jobs)

    @property
    def jobs(self) -> list[Job]:
        """The merges as a kernel reads them."""
        return [item for group in self._groups for item in group]

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
