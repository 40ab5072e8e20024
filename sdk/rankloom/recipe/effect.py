"""Whether every adapter does something wherever it is said to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankloom.adapter.change import ExpertLowRank, LowRank
from rankloom.errors import AdapterError, IntegrityError
from rankloom.finding import Finding, Severity

if TYPE_CHECKING:
    from rankloom.adapter.change import Change
    from rankloom.recipe.plan import Plan

_SHOWN = 3


def find_no_effect(plan: Plan, *, allow: bool = False) -> tuple[Finding, ...]:
    """Find adapters whose factors are zero on some targets: mostly a B that was never trained.

    The values of factors are read, as far as the first that is not zero.

    Args:
        plan: what is composed; where an adapter has weight 0 it is asked for no effect.
        allow: let it pass where an adapter has an effect on other targets.

    Returns:
        A warning for each adapter that has no effect on some targets.

    Raises:
        AdapterError: there is such an adapter, and it is not allowed, or has no effect at all.
    """
    found: dict[int, list[tuple[str, bool]]] = {}
    for target in plan.targets:
        for part in target.parts:
            found.setdefault(part.part, []).append((target.name, is_nothing(part.change)))
    findings = []
    for number, places in sorted(found.items()):
        label, names = plan.labels[number], [name for name, nothing in places if nothing]
        if len(names) == len(places):
            message = f"NUM003 {label} changes nothing: a factor is zero on every target"
            raise AdapterError(message, hint="it was not trained, or other weights were saved")
        findings += [_finding(label, names)] if names else []
    if findings and not allow:
        hint = "give it weight 0 there, or allow it: --allow-no-effect, allow_no_effect=True"
        raise AdapterError(f"{findings[0]}", hint=hint, findings=findings)
    return tuple(findings)


def _finding(label: str, names: list[str]) -> Finding:
    more = f" and {len(names) - _SHOWN} more" if names[_SHOWN:] else ""
    message = f"{label} changes nothing in {', '.join(names[:_SHOWN])}{more}: a factor is zero"
    return Finding("NUM003", message, Severity.WARNING, label, "train it, or weigh it 0 there")


def is_nothing(change: Change) -> bool:
    """Tell whether a product of factors is zero since one of them is; other changes are not."""
    from rankloom.tensorfile.values import is_zero  # numpy, which a plan does not need

    if not isinstance(change, LowRank | ExpertLowRank):
        return False
    try:
        return is_zero(change.b) or is_zero(change.a)
    except IntegrityError:  # the file is cut off, which whoever reads all of it will say
        return False
