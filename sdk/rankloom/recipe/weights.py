"""A weight for each layer or module, written as mergekit writes parameters.

A weight is a number; a list of numbers, which is a gradient over the layers; or a list of filters,
``[{filter: mlp, value: …}, {value: …}]``, of which the first that is found in a target's name
holds. A recipe keeps it as JSON; what decides the bytes is one number for each adapter and target,
and a lock keeps those: ``{targets: {name: number}}``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from rankloom.errors import RefError
from rankloom.recipe.place import place_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True)
class Gradient:
    """Numbers from the first layer to the last, at equal distances; linear between them."""

    values: tuple[float, ...]

    def at(self, layer: int, layers: int) -> float:
        """Return the number for a layer; with as many numbers as layers, exactly its own."""
        steps = max(1, layers - 1)
        place, rest = divmod(layer * (len(self.values) - 1), steps)
        if rest == 0:
            return self.values[place]
        low, high = self.values[place], self.values[place + 1]
        return low + (high - low) * (rest / steps)


@dataclass(frozen=True, slots=True)
class Filter:
    """A weight for the targets with a text in their name; ``None``: for all."""

    text: str | None
    value: float | Gradient

    def holds(self, target: str) -> bool:
        """Whether a target's name has the text."""
        return self.text is None or self.text in target


@dataclass(frozen=True, slots=True)
class ByTarget:
    """A number for each target by name; 0 for those that are not there."""

    values: Mapping[str, float]


Weight: TypeAlias = float | Gradient | tuple[Filter, ...] | ByTarget


def read_weight(value: object) -> Weight:
    """Return the weight that a JSON value stands for; one that was read already stays as it is.

    Raises:
        RefError: it is neither a finite number, nor a list of them, nor filters, nor numbers by
            target.
    """
    if isinstance(value, Gradient | ByTarget):
        return value
    if isinstance(value, tuple) and value and all(isinstance(item, Filter) for item in value):
        return value
    if isinstance(value, dict) and value.keys() == {"targets"}:
        return _read_targets(value["targets"])
    if isinstance(value, dict):
        return (_read_filter(value),)
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return tuple(_read_filter(item) for item in value)
    return _read_value(value)


def _read_targets(value: object) -> ByTarget:
    if not isinstance(value, dict):
        message = f"MRG003 {value!r} gives no numbers by target"
        raise RefError(message, hint='write {"targets": {"model.layers.0.mlp.up.weight": 0.5}}')
    return ByTarget({str(name): _read_number(number) for name, number in value.items()})


def _read_filter(value: dict[str, object]) -> Filter:
    text = value.get("filter", "*")
    if not {"value"} <= value.keys() <= {"filter", "value"} or not isinstance(text, str):
        message = f"MRG003 {value!r} is no filter of a weight"
        raise RefError(message, hint='write {"filter": "mlp", "value": 0.5}, or only "value"')
    return Filter(None if text == "*" else text, _read_value(value["value"]))


def _read_value(value: object) -> float | Gradient:
    if isinstance(value, list | tuple) and value:
        return Gradient(tuple(_read_number(item) for item in value))
    return _read_number(value)


def _read_number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        message = f"MRG003 {value!r} is no weight"
        hint = "a weight is a finite number, also a negative one, a list of them, or filters"
        raise RefError(message, hint=hint)
    return float(value)


def resolve(weight: Weight, target: str, layer: int | None, layers: int) -> float:
    """Return the one number that a weight is for a target.

    Args:
        weight: as :func:`read_weight` gives it.
        target: the target's name.
        layer: number of its layer, from 0; ``None``: it lies in no layer (an embedding, a head).
        layers: how many layers the base has.

    Raises:
        RefError: no filter holds; the layer is none of the base's; or a gradient does not say what
            it is outside of the layers, because its ends differ.
    """
    if isinstance(weight, ByTarget):
        return weight.values.get(target, 0.0)
    if isinstance(weight, tuple):
        found = next((case.value for case in weight if case.holds(target)), None)
        if found is None:
            message = f"MRG003 no filter of the weight holds for {target}"
            raise RefError(message, hint='add {"value": …} at the end, for all other targets')
        weight = found
    if isinstance(weight, float):
        return weight
    return _along(weight, target, layer, layers)


def _along(gradient: Gradient, target: str, layer: int | None, layers: int) -> float:
    if layer is None:
        first, last = gradient.values[0], gradient.values[-1]
        if first != last:
            message = f"MRG003 {target} lies in no layer, and the gradient goes from {first:g} to"
            message += f" {last:g}"
            raise RefError(message, hint="give that target a filter of its own, with one number")
        return first
    if not 0 <= layer < layers:
        message = f"MRG003 {target} lies in layer {layer}, but the base has {layers}"
        raise RefError(message, hint="give the base that the adapter was trained on")
    return gradient.at(layer, layers)


def as_text(weight: Weight) -> str:
    """Return a weight in a few characters."""
    if isinstance(weight, float):
        return f"{weight:g}"
    if isinstance(weight, Gradient):
        return "[" + ", ".join(f"{value:g}" for value in weight.values) + "]"
    if isinstance(weight, ByTarget):
        return "(by target)"
    return "{" + ", ".join(f"{case.text or '*'}: {as_text(case.value)}" for case in weight) + "}"


def unused_filters(weight: Weight, targets: Iterable[str]) -> tuple[str, ...]:
    """Return the texts of filters that decide nothing, which mostly are slips of the pen."""
    if not isinstance(weight, tuple):
        return ()
    used = {next((i for i, case in enumerate(weight) if case.holds(name)), -1) for name in targets}
    return tuple(case.text for i, case in enumerate(weight) if case.text and i not in used)


def depths(names: Iterable[str]) -> dict[str, int]:
    """Return how many layers each list of layers has, by the highest number in it.

    Args:
        names: of targets, or of the tensors of a base.
    """
    found: dict[str, int] = {}
    for place in map(place_of, names):
        if place.layer is not None:
            found[place.stack] = max(found.get(place.stack, 0), place.layer + 1)
    return found


def depth_of(stack: str, base: Mapping[str, int], targets: Mapping[str, int]) -> int:
    """Return how many layers a list of layers has.

    Args:
        stack: the list's name in a target.
        base: what :func:`depths` says of a base, whose names may have another prefix.
        targets: the same of all targets, for what the base does not know.
    """
    if stack in base:
        return base[stack]
    same = {
        depth
        for name, depth in base.items()
        if name.endswith(f".{stack}") or stack.endswith(f".{name}")
    }
    return same.pop() if len(same) == 1 else targets.get(stack, 0)
