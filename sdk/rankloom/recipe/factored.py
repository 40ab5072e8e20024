"""What a method that looks into factors demands of the adapters, before a factor is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.adapter.change import ExpertLowRank, LowRank
from rankloom.errors import IncompatibleError, UnsupportedAdapterError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankloom.recipe.methods import Method
    from rankloom.recipe.plan import PlannedTarget


def is_factored(target: PlannedTarget) -> bool:
    """Tell whether all that is added to a target is kept as factors."""
    return all(isinstance(part.change, LowRank | ExpertLowRank) for part in target.parts)


def check_factored(method: Method, targets: Sequence[PlannedTarget]) -> None:
    """Refuse what has no factors, and targets of which only the base tells that they are one.

    Raises:
        UnsupportedAdapterError: naming adapter, target and kind.
        IncompatibleError: naming both spellings.
    """
    if method.engine == "sum":
        return
    for target in targets:
        _check_kinds(method, target)
    _check_spellings(method, targets)


def _check_kinds(method: Method, target: PlannedTarget) -> None:
    for part in target.parts:
        if not isinstance(part.change, LowRank | ExpertLowRank):
            message = f"{method.name} combines factors, and what {part.label} does to"
            message += f" {target.name} ({part.kind}) has none"
            hint = "use the method exact, linear or task_arithmetic, which take every kind; or save"
            hint += " it alone first ('loractl compose'), which makes LoRA of it where it can"
            raise UnsupportedAdapterError(message, hint=hint)
    if not target.parameter and len(target.weights) > 1:
        message = f"{method.name} cannot tell which parameters meet in {target.name}: only the base"
        message += " knows which of them is meant"
        raise UnsupportedAdapterError(message, hint="use the method exact, which sums them there")


def _check_spellings(method: Method, targets: Sequence[PlannedTarget]) -> None:
    """Demand that adapters name parameters alike: a sum may meet in the base, an angle may not."""
    names = {target.name for target in targets}
    for name in names:
        words = name.split(".")
        for start in range(1, len(words) - 1):
            tail = ".".join(words[start:])
            if tail in names:
                message = f"BASE002 {name} and {tail} may be one parameter under two names, which"
                message += f" {method.name} must see together"
                hint = "save the adapters from one class of model, or use the method exact"
                raise IncompatibleError(message, hint=hint)
