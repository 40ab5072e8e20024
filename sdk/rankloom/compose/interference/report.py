"""The report on everything that adapters change."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from rankloom.compose.interference.gather import gather
from rankloom.compose.interference.measure import measure
from rankloom.compose.interference.value import rounded
from rankloom.errors import RefError
from rankloom.recipe.place import place_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rankloom.compose.interference.heatmap import Figure
    from rankloom.compose.interference.value import Pair, Part, Scope
    from rankloom.finding import Finding

COLUMNS = (
    "where",
    "adapters",
    "cosine",
    "ratio",
    "cancels",
    "out/chance",
    "in/chance",
    "crosstalk out",
    "crosstalk in",
    "signs (est.)",
)
"""Heads of the columns of :meth:`InterferenceReport.table`."""


@dataclass(frozen=True, slots=True)
class InterferenceReport:
    """How much adapters disagree where they meet.

    Attributes:
        targets: every target that some adapter changes, sorted by place.
        layers: the targets of one layer together; what lies in no layer is one called ``other``.
        total: all of them together.
        rows: how many rows of each target the sign conflict was estimated from, at most.
        seed: which rows.
    """

    targets: tuple[Scope, ...]
    layers: tuple[Scope, ...]
    total: Scope
    rows: int
    seed: int

    @property
    def columns(self) -> tuple[str, ...]:
        """Heads of the columns of :meth:`table`."""
        return COLUMNS

    def to_json(self) -> dict[str, Any]:
        """Return the report as a JSON value; numbers have six digits, ``null`` is undefined."""
        return {
            "schema": 1,
            "estimated": {"sign_conflict": {"rows": self.rows, "seed": self.seed}},
            "total": self.total.to_json(),
            "layers": [scope.to_json() for scope in self.layers],
            "targets": [scope.to_json() for scope in self.targets],
        }

    def table(
        self, level: Literal["total", "layers", "targets"] = "layers"
    ) -> tuple[tuple[str, ...], ...]:
        """Return one row of texts for each pair in each scope, under :data:`COLUMNS`.

        Args:
            level: which scopes; the total is always the last.
        """
        scopes = {"total": (), "layers": self.layers, "targets": self.targets}[level]
        return tuple(_row(scope, pair) for scope in (*scopes, self.total) for pair in scope.pairs)

    def findings(self, **limits: float | None) -> tuple[Finding, ...]:
        """Return a warning for each pair and each figure that passes a threshold.

        Args:
            limits: those of :class:`~rankloom.compose.interference.thresholds.Thresholds`; if any
                is given, only those count.
        """
        from rankloom.compose.interference.thresholds import Thresholds, findings

        nothing = dict.fromkeys(field.name for field in fields(Thresholds))
        return findings(self, Thresholds(**{**nothing, **limits}) if limits else Thresholds())

    def heatmap(self, first: str, second: str, figure: Figure = "cosine") -> str:
        """Return one figure of two adapters, layer by module, as an SVG document.

        Args:
            first: an adapter as it was named.
            second: another.
            figure: a property of :class:`~rankloom.compose.interference.value.Pair`.

        Raises:
            RefError: the two meet nowhere.
        """
        from rankloom.compose.interference.heatmap import heatmap

        return heatmap(self, first, second, figure)


def report(
    targets: Iterable[tuple[str, Sequence[Part]]], *, rows: int = 64, seed: int = 0
) -> InterferenceReport:
    """Measure how deltas lie to each other, target by target.

    Args:
        targets: each target's name and what the adapters bring to it, all of one shape; one at a
            time is held if it is an iterator. Parts of weight 0 are passed over.
        rows: how many rows of a target to look at for the sign conflict, the only estimate.
        seed: which rows.

    Raises:
        RefError: no weight is other than 0, a label stands twice on one target, a target stands
            twice, or ``rows`` is below 1.
        IncompatibleError: the shapes of one target differ.
        AdapterError: a factor holds NaN or infinity.
    """
    if rows < 1:
        message = f"{rows} rows tell nothing of the signs"
        raise RefError(message, hint="sample at least one row; 64 are enough for two digits")
    found = {}
    for name, parts in _checked(targets):
        found[name] = measure(name, parts, rows=rows, seed=seed)
    if not found:
        message = "there is nothing to measure: no adapter has a weight other than 0"
        raise RefError(message, hint="give the weights that you mean to compose with")
    ordered = sorted(found.values(), key=_order)
    layers = _by_layer(ordered)
    return InterferenceReport(tuple(ordered), layers, gather("total", ordered), rows, seed)


def _checked(targets: Iterable[tuple[str, Sequence[Part]]]) -> Iterator[tuple[str, list[Part]]]:
    seen = set()
    for name, parts in targets:
        labels = [part.label for part in parts]
        if name in seen or len(set(labels)) < len(labels):
            message = f"MRG004 {name} stands twice, or one of {', '.join(labels)} does"
            raise RefError(message, hint="name each adapter once, with the sum of its weights")
        seen.add(name)
        if kept := [part for part in parts if part.weight != 0]:
            yield name, kept


def _order(scope: Scope) -> tuple[str, int, str]:
    place = place_of(scope.name)
    return place.stack, -1 if place.layer is None else place.layer, scope.name


def _by_layer(scopes: Sequence[Scope]) -> tuple[Scope, ...]:
    layers: dict[str, list[Scope]] = {}
    for scope in scopes:
        place = place_of(scope.name)
        name = "other" if place.layer is None else f"{place.stack}.{place.layer}".lstrip(".")
        layers.setdefault(name, []).append(scope)
    return tuple(gather(name, same) for name, same in layers.items())


def _row(scope: Scope, pair: Pair) -> tuple[str, ...]:
    overlaps = (pair.overlap_out, pair.chance_out), (pair.overlap_in, pair.chance_in)
    return (
        scope.name,
        f"{pair.first} × {pair.second}",
        _text(pair.cosine),
        _text(pair.ratio),
        _text(pair.cancellation),
        *(f"{_text(found)}/{_text(chance)}" for found, chance in overlaps),
        _text(pair.crosstalk_out),
        _text(pair.crosstalk_in),
        _text(pair.sign_conflict),
    )


def _text(number: float | None) -> str:
    return "-" if number is None else f"{rounded(number):.3g}"
