"""What PEFT's ``linear`` computes, for those who must make again what it made.

It is no sum of deltas: (Σ √wᵢ·Bᵢ)·(Σ √wᵢ·Aᵢ) holds √(wᵢwⱼ)·Bᵢ·Aⱼ for all i and j.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from rankloom.adapter.change import LowRank, rank_of
from rankloom.change.evaluate import factors
from rankloom.change.formula import Product, Weighted
from rankloom.compose.factors.value import check_finite
from rankloom.compose.matrices import Matrices
from rankloom.errors import IncompatibleError, UnsupportedAdapterError

if TYPE_CHECKING:
    from rankloom.recipe.plan import PlannedTarget


def terms(target: PlannedTarget) -> list[Weighted]:
    """Return B = Σ √|wᵢ·sᵢ|·Bᵢ and A = Σ ±√|wᵢ·sᵢ|·Aᵢ as one product, added up in float64.

    Formula: ``LoraModel._generalized_task_arithmetic_weighted_adapter`` of PEFT 0.21.2. An adapter
    that leaves the target alone has no part in it.

    Raises:
        IncompatibleError: the ranks differ.
        UnsupportedAdapterError: it is a stack of experts, which PEFT refuses too.
        AdapterError: a factor cannot be read, or holds NaN or infinity.
    """
    _check(target)
    sums: list[torch.Tensor] = []
    for part in target.parts:
        b, a, scale = factors(part.change)
        root = math.sqrt(abs(part.weight * scale))
        signed = math.copysign(root, part.weight * scale)
        # PEFT's A is an embedding's B turned round.
        turned = isinstance(part.change, LowRank) and part.change.transposed
        left, right = (signed, root) if turned else (root, signed)
        both = b.double() * left, a.double() * right
        sums = [total + one for total, one in zip(sums, both, strict=True)] if sums else [*both]
    b, a = sums
    check_finite(b.sum() + a.sum(), target.shape or ())
    matrices = Matrices(target)
    dtype = torch.float64 if matrices.is_wide else torch.float32
    return [Weighted(1.0, Product(b.to(dtype), a.to(dtype), matrices.is_embedding))]


def _check(target: PlannedTarget) -> None:
    ranks = {part.label: rank_of(part.change) for part in target.parts}
    for part in target.parts:
        if not isinstance(part.change, LowRank):
            message = f"peft_linear adds no factors of experts, which {part.label} has for"
            message += f" {target.name}"
            raise UnsupportedAdapterError(message, hint="use the method exact")
    if len(set(ranks.values())) > 1:
        found = ", ".join(f"{rank} in {label}" for label, rank in ranks.items())
        message = f"MRG002 {target.name} has rank {found}: peft_linear adds A to A and B to B"
        raise IncompatibleError(message, hint="use the method exact, which takes any ranks")
