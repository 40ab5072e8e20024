"""From a plan to what is added to each target, by the engine of its method."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.change.formula import Sum, TargetChange, Weighted
from rankloom.change.threads import one_thread
from rankloom.compose import apart, elements, factored, summed
from rankloom.compose.losses import Loss, Losses
from rankloom.recipe.factored import is_factored
from rankloom.recipe.methods import find_method

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankloom.recipe.plan import Plan, PlannedTarget


def compute(plan: Plan, digests: Sequence[str]) -> tuple[tuple[TargetChange, ...], Losses]:
    """Return what a composition adds to each target, and what it lost on the way.

    Factors are read where the method looks into them. It is computed on one thread, since a sum
    that is split among threads may differ in its last bit.

    Args:
        plan: what to do.
        digests: of the adapters, which random numbers depend on.

    Raises:
        AdapterError: a factor cannot be read, or holds NaN or infinity.
        IncompatibleError: the method is not defined for these deltas.
        RefError: a weight or a parameter does not suit the method.
    """
    engine = find_method(plan.method).engine
    changes, losses = [], []
    with one_thread():
        for target in plan.targets:
            terms, loss = _terms(engine, plan, target, digests)
            changes.append(_change(target, terms))
            losses += [loss] if loss else []
    return tuple(changes), Losses(tuple(losses))


def _terms(
    engine: str, plan: Plan, target: PlannedTarget, digests: Sequence[str]
) -> tuple[Sequence[Weighted], Loss | None]:
    if engine == "elements":
        return elements.terms(plan, target, digests)
    if engine == "apart":
        return apart.terms(target), None
    if engine == "core" or (plan.keep is not None and is_factored(target)):
        return factored.terms(plan, target, digests)
    return summed.terms(plan, target), None


def _change(target: PlannedTarget, terms: Sequence[Weighted]) -> TargetChange:
    kinds = frozenset(part.kind for part in target.parts)
    origin = target.parts[0].change
    formula = Sum(tuple(terms))
    return TargetChange(
        target.module,
        target.parameter,
        formula,
        target.candidates,
        kinds,
        origin,
        target.fan_in_fan_out,
    )
