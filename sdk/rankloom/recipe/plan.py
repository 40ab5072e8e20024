"""The plan: what a composition will do to each target, made from headers alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rankloom.adapter.change import rank_of
from rankloom.errors import RefError
from rankloom.recipe.checks import check_bases, find_apart, find_large, find_repeated, find_unused
from rankloom.recipe.factored import check_factored
from rankloom.recipe.meeting import check_meeting, check_shapes
from rankloom.recipe.methods import find_method
from rankloom.recipe.place import place_of
from rankloom.recipe.recipe import check_weights
from rankloom.recipe.weights import as_text, depth_of, depths, resolve

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rankloom.adapter.change import Change, Target
    from rankloom.finding import Finding
    from rankloom.recipe.methods import Method
    from rankloom.recipe.part import Part
    from rankloom.recipe.rank import Rank
    from rankloom.recipe.weights import Weight


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
    """One base tensor and everything that will be added to it, in the order of the recipe.

    Attributes:
        module: the module's name.
        parameter: the module's parameter.
        parts: what the adapters bring to it whose weight is not 0.
        candidates: what the parameter can be, if only the base tells it.
        weights: of every adapter of the recipe on this target.
        fan_in_fan_out: see :class:`rankloom.adapter.change.Target`.
    """

    module: str
    parameter: str
    parts: tuple[PlannedPart, ...]
    candidates: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    fan_in_fan_out: bool = False

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
        parameters: of the method, defaults too.
        keep: the rank that the result is brought to.
    """

    method: str
    labels: tuple[str, ...]
    weights: tuple[Weight, ...]
    targets: tuple[PlannedTarget, ...]
    findings: tuple[Finding, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    keep: Rank | None = None

    @property
    def rank(self) -> int | None:
        """The largest rank of any target that has one."""
        ranks = (target.rank for target in self.targets)
        return max((rank for rank in ranks if rank is not None), default=None)

    def __str__(self) -> str:
        terms = " + ".join(
            f"{as_text(weight)}·{label}"
            for weight, label in zip(self.weights, self.labels, strict=True)
        )
        rank = "" if self.rank is None else f", rank up to {self.rank}"
        kept = "" if self.keep is None else f", brought to {_asked(self.keep)}"
        head = f"{self._method()}: {terms}; {len(self.targets)} targets{rank}{kept}"
        return "\n".join([head, *(_line(target) for target in self.targets), *self._notes()])

    def _method(self) -> str:
        given = ", ".join(f"{name}={value}" for name, value in self.parameters.items())
        return f"{self.method}({given})" if given else self.method

    def _notes(self) -> list[str]:
        return [f"{finding.severity}: {finding}" for finding in self.findings]


def _asked(rank: Rank) -> str:
    return f"rank {rank}" if isinstance(rank, int) else f"the rank for {rank}"


def _line(target: PlannedTarget) -> str:
    shape = "" if target.shape is None else f" {target.shape}"
    rank = "" if target.rank is None else f" rank {target.rank}"
    return f"  {target.name}{shape}{rank}: {', '.join(map(str, target.parts))}"


def make_plan(
    parts: Sequence[Part],
    weights: Sequence[object] | None = None,
    *,
    method: str = "exact",
    parameters: Mapping[str, object] | None = None,
    rank: object = None,
    base_names: Iterable[str] = (),
) -> Plan:
    """Plan a composition; nothing but headers is looked at.

    Args:
        parts: the adapters.
        weights: one for each: a number, a gradient over the layers, or filters.
        method: a key of :data:`rankloom.recipe.methods.METHODS`.
        parameters: of the method.
        rank: see :func:`rankloom.recipe.rank.parse_rank`.
        base_names: names of the base's tensors, which tell how many layers it has; without them
            the targets do.

    Raises:
        RefError: unknown method, parameters or a rank that it does not take, weights that are
            none, or a weight that does not say what it is for a target.
        IncompatibleError: the parts were made for different bases, or disagree on a shape.
        UnsupportedAdapterError: the method does not work on how an adapter stores its change.
    """
    known = find_method(method)
    labels = tuple(part.label for part in parts)
    checked = check_weights(weights, labels)
    values = known.read(parameters or {}, len(parts))
    keep = known.read_rank(rank)
    check_bases(parts)
    targets = _Planner(parts, checked, known, depths(base_names)).targets()
    if not targets:
        message = f"MRG003 every weight is 0: nothing of {', '.join(labels)} would be left"
        raise RefError(message, hint="give at least one target a weight other than 0")
    check_factored(known, targets)
    findings = (
        *find_apart(known),
        *find_repeated(parts),
        *find_large(parts, checked),
        *find_unused(parts, checked),
    )
    return Plan(method, labels, checked, targets, findings, values, keep)


class _Planner:
    """Brings together what adapters do to the same targets."""

    def __init__(
        self,
        parts: Sequence[Part],
        weights: Sequence[Weight],
        method: Method,
        base_depths: Mapping[str, int],
    ) -> None:
        self._parts, self._weights, self._method = parts, weights, method
        self._base = base_depths
        self._depths = depths(target.name for part in parts for target in part.adapter.targets)

    def targets(self) -> tuple[PlannedTarget, ...]:
        """Return all targets, sorted by name."""
        found: dict[tuple[object, ...], list[tuple[int, Target]]] = {}
        for number, part in enumerate(self._parts):
            for place, target in enumerate(part.adapter.targets):
                # Targets whose parameter only the base can tell meet there.
                key = (target.name,) if target.parameter else (number, place)
                found.setdefault(key, []).append((number, target))
        planned = [self._plan(same) for same in found.values()]
        kept = [target for target in planned if target.parts]
        return tuple(sorted(kept, key=lambda target: target.name))

    def _plan(self, found: list[tuple[int, Target]]) -> PlannedTarget:
        parts = self._parts
        _, first = found[0]
        weights = self._resolve(first.name, {number for number, _ in found})
        kept = tuple(
            PlannedPart(number, parts[number].label, weights[number], target.kind, target.change)
            for number, target in found
            if weights[number] != 0
        )
        check_shapes(first.name, [(parts[number].label, target.change) for number, target in found])
        check_meeting(first.name, kept)
        turned = any(target.fan_in_fan_out for _, target in found)
        where = first.module, first.parameter
        return PlannedTarget(*where, kept, first.candidates, weights, turned)

    def _resolve(self, name: str, present: set[int]) -> tuple[float, ...]:
        """Return the number of every adapter, of one that leaves the target alone if it matters."""
        place = place_of(name)
        layers = depth_of(place.stack, self._base, self._depths)
        return tuple(
            resolve(weight, name, place.layer, layers)
            if number in present or self._method.name != "exact"
            else 0.0
            for number, weight in enumerate(self._weights)
        )
