"""Several deltas that a kernel wants one by one, from factors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from rankloom_kernels.gpu.launch import ELEMENT
from rankloom_kernels.gpu.product import Cut
from rankloom_kernels.gpu.tables import Job, are_aligned, factor_dtype, ready, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankloom_kernels.terms import Term


class Deltas(NamedTuple):
    """What kernels that look at each delta by itself read; all of them see the same bits.

    Attributes:
        terms: of a :class:`~rankloom_kernels.gpu.tables.Table`.
        scales: likewise.
        coefficients: (N,) float32.
        shape: (out, in) of each delta.
        cut: of the kernels.
        constants: what they are compiled for.
        options: of the compiler.
        held: the factors that ``terms`` has the addresses of.
    """

    terms: torch.Tensor
    scales: torch.Tensor
    coefficients: torch.Tensor
    shape: tuple[int, int]
    cut: Cut
    constants: dict[str, Any]
    options: dict[str, Any]
    held: Job

    @property
    def device(self) -> torch.device:
        """Where the factors are."""
        return self.terms.device


def deltas(terms: Sequence[Term]) -> Deltas:
    """Return deltas as kernels read them.

    Args:
        terms: at least one, all of one shape and on one device.
    """
    whole = Job(terms[0].b, terms[0].b, tuple(terms))  # no kernel looks at a weight
    factor = factor_dtype([whole])
    held = ready(whole, factor)
    work = table([held], (1, 1))
    aligned = are_aligned([held._replace(weight=held.terms[0].b, out=held.terms[0].b)])
    rank = max(term.b.shape[1] for term in terms)
    cut = cut_for(factor, rank, aligned=aligned)
    coefficients = torch.tensor([term.coefficient for term in held.terms], dtype=torch.float64)
    constants, options = specialised(factor, cut, aligned=aligned)
    return Deltas(
        work.terms,
        work.scales,
        coefficients.float().to(work.terms.device),
        terms[0].shape,
        cut,
        constants,
        options,
        held,
    )


def cut_for(factor: torch.dtype, rank: int, *, aligned: bool) -> Cut:
    """Return the cut; small, since a kernel has up to seven accumulators."""
    is_wide = factor == torch.float32
    return Cut(32, 64, 16 if is_wide or rank <= 16 else 32, 2 if aligned and not is_wide else 1)


def specialised(
    factor: torch.dtype, cut: Cut, *, aligned: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what kernels are compiled for: constants, and options of the compiler.

    Whether an element is beyond a threshold must not depend on what it is merged into, so that
    float32 factors are always multiplied as such.
    """
    constants = {
        "FACTOR": ELEMENT[factor],
        "PRECISION": "ieee",
        "ALIGNED": aligned,
        "ROWS": cut.rows,
        "COLUMNS": cut.columns,
        "STEP": cut.step,
    }
    options = {"num_warps": 4, "num_stages": cut.stages, "maxnreg": 255, "enable_fp_fusion": True}
    return constants, options
