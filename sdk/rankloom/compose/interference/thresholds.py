"""Turns figures into findings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rankloom.recipe.rules import RULES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rankloom.compose.interference.report import InterferenceReport
    from rankloom.compose.interference.value import Pair, Scope
    from rankloom.finding import Finding
    from rankloom.validate.rule import Rule


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What is still taken for harmless; ``None`` leaves a figure out.

    Attributes:
        max_dominance: ratio of the longer to the shorter weighted delta of a pair.
        min_cosine: of the angle between two weighted deltas.
        max_cancellation: of a pair, share of the squared norms that is lost in the sum.
        max_overlap: of spaces, as a multiple of chance.
        max_sign_conflict: estimated share of opposed magnitude.
    """

    max_dominance: float | None = 4.0
    min_cosine: float | None = -0.2
    max_cancellation: float | None = 0.5
    max_overlap: float | None = None
    max_sign_conflict: float | None = None


def findings(report: InterferenceReport, thresholds: Thresholds) -> tuple[Finding, ...]:
    """Return one warning for each pair and each threshold that some target passes.

    It tells the worst target, how many others there are, and the figure over all targets. A delta
    that is 0 has neither cosine nor dominance and passes nothing.
    """
    return tuple(
        finding
        for pair in report.total.pairs
        for rule, figure, limit, sign in _limits(thresholds)
        if (finding := _finding(report, pair, rule, figure, sign, limit))
    )


def _limits(thresholds: Thresholds) -> Iterator[tuple[Rule, str, float, int]]:
    """Yield what is limited, and the sign with which larger is worse."""
    limits = (
        ("INT001", "dominance", thresholds.max_dominance, 1),
        ("INT002", "cosine", thresholds.min_cosine, -1),
        ("INT003", "cancellation", thresholds.max_cancellation, 1),
        ("INT004", "overlap", thresholds.max_overlap, 1),
        ("INT005", "sign_conflict", thresholds.max_sign_conflict, 1),
    )
    for rule, figure, limit, sign in limits:
        if limit is not None:
            yield RULES[rule], figure, limit, sign


def _finding(
    report: InterferenceReport, total: Pair, rule: Rule, figure: str, sign: int, limit: float
) -> Finding | None:
    values = [(sign * value, scope.name) for scope, value in _values(report.targets, total, figure)]
    beyond = [item for item in values if item[0] > sign * limit]
    if not beyond:
        return None
    worst, where = max(beyond)
    overall = getattr(total, figure)
    message = (
        f"{figure.replace('_', ' ')} of {total.first} and {total.second} is {sign * worst:.3g} on "
        f"{where}, and {'above' if sign > 0 else 'below'} {limit:g} on {len(beyond)} of the "
        f"{total.targets} targets where they meet"
    )
    message += "" if overall is None else f" ({overall:.3g} over all of them)"
    return rule.finding(message, where=where)


def _values(scopes: tuple[Scope, ...], total: Pair, figure: str) -> Iterator[tuple[Scope, float]]:
    pair_of = {total.first, total.second}
    for scope in scopes:
        for pair in scope.pairs:
            value = getattr(pair, figure)
            if {pair.first, pair.second} == pair_of and value is not None:
                yield scope, value
