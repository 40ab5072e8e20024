"""The plan: what a composition will do to each target, made from headers alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rankloom.adapter.change import rank_of
from rankloom.recipe.checks import check_bases, find_repeated
from rankloom.recipe.meeting import check_meeting, check_shapes
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
        kind: how the adapter stores it.
        change: its change, of which nothing was read yet.
    """

    part: int
    label: str
    weight: float
    kind: str
    change: Change

    @property
    def coefficient(self) -> float:
        """Weight times scale, if it has one: what B·A is multiplied by."""
        change = self.change
        return self.weight * getattr(change, "scale", 1.0)

    def __str__(self) -> str:
        rank = rank_of(self.change)
        inside = self.kind if rank is None else f"r={rank}"
        return f"{self.coefficient:g}·{self.label} ({inside})"


@dataclass(frozen=True, slots=True)
class PlannedTarget:
    """One base tensor and everything that will be added to it, in the order of the recipe."""

    module: str
    parameter: str
    parts: tuple[PlannedPart, ...]
    candidates: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Full name of the parameter; where only the base can tell it, all that it can be."""
        return f"{self.module}.{self.parameter or '|'.join(self.candidates)}"

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Shape of the parameter, if any of the changes knows it."""
        shapes = (part.change.shape for part in self.parts)
        return next((shape for shape in shapes if shape is not None), None)

    @property
    def rank(self) -> int | None:
        """Rank of the exact sum, the sum of the ranks; ``None``: not all parts have one."""
        ranks = [rank_of(part.change) for part in self.parts]
        known = [rank for rank in ranks if rank is not None]
        return sum(known) if len(known) == len(ranks) else None


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
    def rank(self) -> int | None:
        """The largest rank of any target that has one."""
        ranks = (target.rank for target in self.targets)
        return max((rank for rank in ranks if rank is not None), default=None)

    def __str__(self) -> str:
        terms = " + ".join(
            f"{weight:g}·{label}" for weight, label in zip(self.weights, self.labels, strict=True)
        )
        rank = "" if self.rank is None else f", rank up to {self.rank}"
        head = f"{self.method}: {terms}; {len(self.targets)} targets{rank}"
        return "\n".join([head, *(_line(target) for target in self.targets), *self._notes()])

    def _notes(self) -> list[str]:
        return [f"{finding.severity}: {finding}" for finding in self.findings]


def _line(target: PlannedTarget) -> str:
    shape = "" if target.shape is None else f" {target.shape}"
    rank = "" if target.rank is None else f" rank {target.rank}"
    return f"  {target.name}{shape}{rank}: {', '.join(map(str, target.parts))}"


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
    found: dict[tuple[object, ...], list[tuple[int, Target]]] = {}
    for number, part in enumerate(parts):
        for place, target in enumerate(part.adapter.targets):
            # Targets whose parameter only the base can tell meet there.
            key = (target.name,) if target.parameter else (number, place)
            found.setdefault(key, []).append((number, target))
    planned = [_plan_target(same, parts, weights) for same in found.values()]
    kept = [target for target in planned if target.parts]
    return tuple(sorted(kept, key=lambda target: target.name))


def _plan_target(
    found: list[tuple[int, Target]], parts: Sequence[Part], weights: Sequence[float]
) -> PlannedTarget:
    kept = tuple(
        PlannedPart(number, parts[number].label, weights[number], target.kind, target.change)
        for number, target in found
        if weights[number] != 0
    )
    _, first = found[0]
    check_shapes(first.name, [(parts[number].label, target.change) for number, target in found])
    check_meeting(first.name, kept)
    return PlannedTarget(first.module, first.parameter, kept, first.candidates)
