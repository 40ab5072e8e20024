"""Which weights are sought: one for each adapter, or for each group of its targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rankloom.errors import RefError
from rankloom.recipe.place import place_of
from rankloom.recipe.weights import depth_of, depths

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rankloom.recipe.part import Part

Vector = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Targets of one adapter whose weights are found together.

    Attributes:
        text: what their names have in common; ``None``: all that no other group has.
        bands: how many numbers it has, each for as many layers as the others, nearly.
        layers: how many layers there are; 0: it has one number.
    """

    text: str | None
    bands: int = 1
    layers: int = 0

    def value(self, numbers: Sequence[float]) -> float | list[float]:
        """Return the numbers as a recipe has them: one, or one for each layer."""
        if not self.layers:
            return numbers[0]
        return [numbers[layer * self.bands // self.layers] for layer in range(self.layers)]

    def names(self, label: str) -> list[str]:
        """Return what each of its numbers is called."""
        where = label if self.text is None else f"{label} {self.text}"
        if not self.layers:
            return [where]
        return [f"{where} {band + 1}/{self.bands}" for band in range(self.bands)]


@dataclass(frozen=True, slots=True)
class Space:
    """All weights of a composition as one vector.

    Attributes:
        labels: of the adapters.
        groups: of each adapter.
    """

    labels: tuple[str, ...]
    groups: tuple[tuple[Group, ...], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """What each number of a vector is."""
        pairs = zip(self.labels, self.groups, strict=True)
        return tuple(
            name for label, groups in pairs for group in groups for name in group.names(label)
        )

    def split(self, vector: Vector) -> list[Vector]:
        """Return the numbers of each adapter."""
        found, start = [], 0
        for groups in self.groups:
            stop = start + sum(group.bands for group in groups)
            found.append(vector[start:stop])
            start = stop
        return found

    def weights(self, vector: Vector) -> list[Any]:
        """Return one weight for each adapter as a recipe has it, a JSON value."""
        pairs = zip(self.groups, self.split(vector), strict=True)
        return [_weight(groups, numbers) for groups, numbers in pairs]

    def has_all(self, vector: Vector) -> bool:
        """Whether every adapter takes part: has a weight other than 0 somewhere."""
        return all(any(numbers) for numbers in self.split(vector))

    def alone(self, number: int) -> Vector:
        """Return the vector of one adapter at weight 1, all others at 0."""
        counts = [sum(group.bands for group in groups) for groups in self.groups]
        return tuple(
            float(place == number) for place, count in enumerate(counts) for _ in range(count)
        )

    def describe(self, vector: Vector) -> str:
        """Return a vector in words, e.g. ``0.75 zh-lang + 0.4 qa-task``."""
        pairs = zip(vector, self.names, strict=True)
        terms = [f"{number:g} {name}" for number, name in pairs if number]
        return " + ".join(terms) or "the base alone"

    def to_json(self) -> list[Any]:
        """Return what decides the meaning of a vector, without labels."""
        return [
            [[group.text, group.bands, group.layers] for group in groups] for groups in self.groups
        ]


def _weight(groups: Sequence[Group], numbers: Vector) -> object:
    values, start = [], 0
    for group in groups:
        values.append(group.value(numbers[start : start + group.bands]))
        start += group.bands
    if len(groups) == 1 and groups[0].text is None:
        return values[0]
    return [
        {"value": value} if group.text is None else {"filter": group.text, "value": value}
        for group, value in zip(groups, values, strict=True)
    ]


def make_space(
    parts: Sequence[Part],
    texts: Sequence[str] = (),
    bands: int = 1,
    *,
    base_names: Iterable[str] = (),
    shared: bool = False,
) -> Space:
    """Return the space of all weights of some adapters.

    Args:
        parts: the adapters.
        texts: one group for the targets with each text in their name, as the filters of a weight:
            the first that is found holds; all other targets are one more group.
        bands: into how many bands of layers each group is cut; what lies in no layer is not.
        base_names: names of the base's tensors, which tell how many layers it has.
        shared: every adapter has a weight for the targets of all of them, since the method asks
            for the weights of those that leave a target alone, too.

    Raises:
        RefError: a text is in the name of no target, or a group cannot be cut into bands.
    """
    own = [[target.name for target in part.adapter.targets] for part in parts]
    every = [name for names in own for name in names]
    if bands < 1:
        message = f"MRG003 {bands} bands of layers"
        raise RefError(message, hint="give 1 for one weight over all layers, 3 for thirds")
    for text in texts:
        if not any(text in name for name in every):
            message = f"MRG006 no target has {text!r} in its name, so it makes no group"
            raise RefError(message, hint=f"targets are named like {every[0]}")
    known = depths(base_names), depths(every)
    groups = tuple(
        tuple(
            _group(text, names, bands, known)
            for text, names in _by_text(every if shared else names, texts).items()
        )
        for names in own
    )
    return Space(tuple(part.label for part in parts), groups)


def _by_text(names: Iterable[str], texts: Sequence[str]) -> dict[str | None, list[str]]:
    found: dict[str | None, list[str]] = {text: [] for text in (*texts, None)}
    for name in names:
        found[next((text for text in texts if text in name), None)].append(name)
    return {text: held for text, held in found.items() if held}


def _group(
    text: str | None, names: Sequence[str], bands: int, known: tuple[dict[str, int], dict[str, int]]
) -> Group:
    places = [place_of(name) for name in names]
    if bands == 1 or all(place.layer is None for place in places):
        return Group(text)
    found = {depth_of(place.stack, *known) for place in places if place.layer is not None}
    outside = [name for name, place in zip(names, places, strict=True) if place.layer is None]
    if outside or len(found) > 1 or bands > max(found):
        what = f"{outside[0]} lies in no layer" if outside else f"layers: {sorted(found)}"
        message = f"MRG003 {text or 'the targets'} cannot be cut into {bands} bands ({what})"
        hint = "give targets outside of the layers, and each list of layers, a group of their own"
        raise RefError(message, hint=hint)
    return Group(text, bands, found.pop())
