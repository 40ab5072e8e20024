"""Method ``exact``: ΔW = Σ wᵢ·(Wᵢ′ − W); of LoRA adapters Σ wᵢ·sᵢ·BᵢAᵢ, of rank Σrᵢ."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.change.formula import Sum, TargetChange, Weighted

if TYPE_CHECKING:
    from rankloom.recipe.plan import Plan, PlannedTarget


def exact(plan: Plan) -> tuple[TargetChange, ...]:
    """Return what the plan adds to each target; no factor is read."""
    return tuple(_sum(target) for target in plan.targets)


def _sum(target: PlannedTarget) -> TargetChange:
    terms = tuple(Weighted(part.weight, part.change) for part in target.parts)
    kinds = frozenset(part.kind for part in target.parts)
    return TargetChange(target.module, target.parameter, Sum(terms), target.candidates, kinds)
