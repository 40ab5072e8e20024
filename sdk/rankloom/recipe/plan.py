"""The plan: what a composition will do to each target, made from headers alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rankloom.errors import IncompatibleError
from rankloom.recipe.checks import check_bases, find_repeated
from rankloom.recipe.recipe import algorithm, check_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankloom.adapter.change import Change, Target
    from rankloom.finding import Finding
    from rankloom.recipe.part import Part


@dataclass(frozen=True, slots=True)
class PlannedPart:
    """What one adapter brings to one target.

    Attributes:
        part: the adapter's place in the recipe, from 0.
        label: its name in messages.
        weight: the caller's weight, never 0.
        change: its change, of which nothing was read yet.
    """

    part: int
    label: str
    weight: float
    change: Change

    @property
    def coefficient(self) -> float:
        """Weight times scale: what B·A is multiplied by."""
        return self.weight * self.change.scale


@dataclass(frozen=True, slots=True)
class PlannedTarget:
    """One base tensor and everything that will be added to it, in the order of the recipe."""

    module: str
    parameter: str
    parts: tuple[PlannedPart, ...]

    @property
    def name(self) -> str:
        """Full name of the parameter."""
        return f"{self.module}.{self.parameter}"

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the delta."""
        return self.parts[0].change.shape

    @property
    def rank(self) -> int:
        """Rank of the exact sum: the sum of the ranks."""
        return sum(part.change.rank for part in self.parts)


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be done; ``str(plan)`` prints it.

    Attributes:
        method: name of the method.
        labels: every adapter of the recipe, also those of weight 0.
        weights: one for each label.
        targets: sorted by name.
        findings: warnings about the recipe, e.g. the same adapter twice.
    """

    method: str
    labels: tuple[str, ...]
    weights: tuple[float, ...]
    targets: tuple[PlannedTarget, ...]
    findings: tuple[Finding, ...] = ()

    @property
    def rank(self) -> int:
        """The largest rank of any target."""
        return max(target.rank for target in self.targets)

    def __str__(self) -> str:
        terms = " + ".join(
            f"{weight:g}·{label}" for weight, label in zip(self.weights, self.labels, strict=True)
        )
        head = f"{self.method}: {terms}; {len(self.targets)} targets, rank up to {self.rank}"
        return "\n".join([head, *(_line(target) for target in self.targets), *self._notes()])

    def _notes(self) -> list[str]:
        return [f"{finding.severity}: {finding}" for finding in self.findings]


def _line(target: PlannedTarget) -> str:
    out, in_ = target.shape
    parts = ", ".join(
        f"{part.coefficient:g}·{part.label} (r={part.change.rank})" for part in target.parts
    )
    return f"  {target.name} ({out}, {in_}) rank {target.rank}: {parts}"


def make_plan(
    parts: Sequence[Part], weights: Sequence[float] | None = None, *, method: str = "exact"
) -> Plan:
    """Plan a composition; nothing but headers is looked at.

    Raises:
        RefError: unknown method; the weights are not one finite number for each part.
        IncompatibleError: the parts were made for different bases, or disagree on a shape.
    """
    algorithm(method)
    labels = tuple(part.label for part in parts)
    checked = check_weights(weights, labels)
    check_bases(parts)
    targets = _plan_targets(parts, checked)
    return Plan(method, labels, checked, targets, find_repeated(parts))


def _plan_targets(parts: Sequence[Part], weights: Sequence[float]) -> tuple[PlannedTarget, ...]:
    found: dict[str, list[tuple[int, Target]]] = {}
    for number, part in enumerate(parts):
        for target in part.adapter.targets:
            found.setdefault(target.name, []).append((number, target))
    planned = (_plan_target(found[name], parts, weights) for name in sorted(found))
    return tuple(target for target in planned if target.parts)


def _plan_target(
    found: list[tuple[int, Target]], parts: Sequence[Part], weights: Sequence[float]
) -> PlannedTarget:
    first_number, first = found[0]
    for number, target in found[1:]:
        if target.change.shape != first.change.shape:
            message = (
                f"BASE002 {target.name} is {first.change.shape} in {parts[first_number].label},"
                f" but {target.change.shape} in {parts[number].label}"
            )
            raise IncompatibleError(message, hint="adapters of one base agree on every shape")
    kept = tuple(
        PlannedPart(number, parts[number].label, weights[number], target.change)
        for number, target in found
        if weights[number] != 0
    )
    return PlannedTarget(first.module, first.parameter, kept)
