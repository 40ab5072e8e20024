"""Checks between the adapters of one recipe."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from rankloom.errors import IncompatibleError
from rankloom.finding import Finding, Severity
from rankloom.fingerprint import Fingerprint
from rankloom.recipe.lines import placed
from rankloom.recipe.weights import unused_filters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankloom.recipe.methods import Method
    from rankloom.recipe.part import Part
    from rankloom.recipe.weights import Weight

LARGE = 10.0
"""A weight of a larger size is warned of."""

_LEVELS = ("cfg", "struct", "exact", "bf16")


def check_bases(parts: Sequence[Part]) -> None:
    """Refuse adapters whose recorded bases differ; those without a record are let through.

    Raises:
        IncompatibleError: two of them were made for different bases.
    """
    known = [part for part in parts if part.base is not None]
    for one, other in combinations(known, 2):
        if one.base and other.base and one.base.match(other.base) is None:
            message = f"MRG001 {one.label} and {other.label} were made for different bases"
            message += f": {difference(one.base, other.base)}"
            hint = "compose only adapters of the same base"
            raise IncompatibleError(placed(message, other.line), hint=hint)


def difference(one: Fingerprint, other: Fingerprint) -> str:
    """Say at which levels two fingerprints differ, with the first digits of both."""
    levels = ("struct", "exact", "bf16")
    pairs = [(level, getattr(one, level), getattr(other, level)) for level in levels]
    return ", ".join(
        f"{level} {_short(mine)} and {_short(theirs)}"
        for level, mine, theirs in pairs
        if mine and theirs and mine != theirs
    )


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


def common_base(parts: Sequence[Part]) -> Fingerprint | None:
    """Return what is known of the base of parts whose bases were checked to match.

    A level on which two records differ (the exact level of a float32 base and of its bfloat16
    copy) is left out; one that only some know is kept.
    """
    known = [part.base for part in parts if part.base is not None]
    if not known:
        return None
    levels = {name: {getattr(base, name) for base in known} - {None} for name in _LEVELS}
    return Fingerprint(
        **{name: values.pop() for name, values in levels.items() if len(values) == 1}
    )


def find_repeated(parts: Sequence[Part]) -> tuple[Finding, ...]:
    """Return a warning for each adapter that is there more than once: its weights add up."""
    first: dict[str, str] = {}
    findings = []
    for part in parts:
        if part.digest in first:
            message = f"{first[part.digest]} and {part.label} are the same adapter"
            fix = "name it once, with the sum of the weights"
            findings.append(Finding("MRG004", message, Severity.WARNING, part.label, fix))
        first.setdefault(part.digest, part.label)
    return tuple(findings)


def find_large(parts: Sequence[Part], weights: Sequence[Weight]) -> tuple[Finding, ...]:
    """Return a warning for each weight that is so large that it is mostly a slip."""
    findings = []
    for part, weight in zip(parts, weights, strict=True):
        if isinstance(weight, int | float) and abs(weight) > LARGE:
            message = f"the weight of {part.label} is as large as {weight:g}"
            fix = f"weights are mostly between -1 and 1; more than {LARGE:g} was meant?"
            findings.append(Finding("MRG003", message, Severity.WARNING, part.label, fix))
    return tuple(findings)


def find_unused(parts: Sequence[Part], weights: Sequence[Weight]) -> tuple[Finding, ...]:
    """Return a warning for each filter of a weight that decides nothing: mostly a slip."""
    findings = []
    for part, weight in zip(parts, weights, strict=True):
        names = [target.name for target in part.adapter.targets]
        for text in unused_filters(weight, names):
            message = f"the filter {text!r} of {part.label} decides the weight of no target"
            fix = "compare it with the names of the targets in the plan"
            findings.append(Finding("MRG006", message, Severity.WARNING, part.label, fix))
    return tuple(findings)


def find_apart(method: Method) -> tuple[Finding, ...]:
    """Return a warning if a method combines A and B apart."""
    if method.engine != "apart":
        return ()
    message = f"{method.name} combines all A and all B apart: the result holds products of one"
    message += " adapter's B with another's A, which nobody trained"
    return (Finding("MRG011", message, Severity.WARNING, fix="use the method exact"),)


def check_target_base(parts: Sequence[Part], base: Fingerprint) -> None:
    """Refuse parts that were made for another base than the one the caller names.

    Raises:
        IncompatibleError: naming the first such part.
    """
    for part in parts:
        if part.base is not None and part.base.match(base) is None:
            message = f"BASE003 {part.label} was made for another base than the one given"
            message += f": {difference(part.base, base)}"
            hint = "give the base that it was trained on"
            raise IncompatibleError(placed(message, part.line), hint=hint)
