"""The report on a plan: what its adapters bring to each target, read one target at a time."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from rankloom.compose.interference.report import InterferenceReport, report
from rankloom.compose.interference.value import Part
from rankloom.compose.matrices import Matrices
from rankloom.errors import RankloomWarning
from rankloom.recipe.factored import is_factored

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rankloom.recipe.plan import Plan


def report_on(plan: Plan, *, rows: int = 64, seed: int = 0) -> InterferenceReport:
    """Measure how the weighted deltas of a plan lie to each other.

    Of a stack of experts each is measured by itself. What has no factors is not measured, which a
    warning says.

    Args:
        plan: of the method exact.
        rows: how many rows of a target are looked at for the estimate of sign conflicts.
        seed: which rows.

    Raises:
        RefError: nothing can be measured, or an adapter stands twice.
        AdapterError: a factor cannot be read, or holds NaN or infinity.
    """
    left_out = [target for target in plan.targets if not is_factored(target)]
    if left_out:
        kinds = sorted({part.kind for target in left_out for part in target.parts})
        message = f"{len(left_out)} targets are not measured: {', '.join(kinds)} has no factors"
        warnings.warn(RankloomWarning(message), stacklevel=3)
    return report(_measurable(plan), rows=rows, seed=seed)


def _measurable(plan: Plan) -> Iterator[tuple[str, list[Part]]]:
    for target in plan.targets:
        if not is_factored(target):
            continue
        matrices = Matrices(target)
        for expert in matrices.experts:
            found = zip(plan.labels, target.weights, matrices.of(expert), strict=True)
            parts = [Part(*item) for item in found if item[2].rank]
            yield target.name + ("" if expert is None else f"[{expert}]"), parts
