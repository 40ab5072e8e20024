"""Draws one figure of two adapters, layer by module, as SVG."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias
from xml.sax.saxutils import escape

from rankloom.compose.interference.gather import gather
from rankloom.errors import RefError
from rankloom.recipe.place import place_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rankloom.compose.interference.report import InterferenceReport
    from rankloom.compose.interference.value import Pair, Scope

Figure: TypeAlias = Literal[
    "cosine",
    "cancellation",
    "dominance",
    "overlap_out",
    "overlap_in",
    "crosstalk_out",
    "crosstalk_in",
    "sign_conflict",
]
Row: TypeAlias = tuple[str, int]

CELL, LEFT, TOP = 18, 150, 120
GREY, WHITE, RED, BLUE = (225, 225, 225), (255, 255, 255), (178, 24, 43), (33, 102, 172)


@dataclass(frozen=True, slots=True)
class Grid:
    """One pair of adapters, layer by module; where they do not meet, there is nothing."""

    rows: tuple[Row, ...]
    columns: tuple[str, ...]
    cells: dict[tuple[Row, str], Pair]


def heatmap(report: InterferenceReport, first: str, second: str, figure: Figure = "cosine") -> str:
    """Return an SVG document: a row for each layer, a column for each module.

    Red stands for what hurts: opposed, cancelled, drowned, crowded. Signed figures go from blue
    over white to red between −1 and 1, the others from white to the largest there is. Cells where
    the two do not meet are grey. Every cell tells its value where a pointer rests on it.

    Args:
        report: what was measured.
        first: label of an adapter.
        second: label of another.
        figure: which property of a pair to draw.

    Raises:
        RefError: the two meet nowhere.
    """
    grid = _grid(report.targets, first, second)
    values = {place: getattr(pair, figure) for place, pair in grid.cells.items()}
    largest = max((abs(value) for value in values.values() if value is not None), default=0.0)
    cells = [
        _cell(grid, row, column, values.get((row, column)), figure, largest)
        for row in grid.rows
        for column in grid.columns
    ]
    width = LEFT + CELL * len(grid.columns) + 20
    height = TOP + CELL * len(grid.rows) + 20
    title = f"{figure.replace('_', ' ')}: {first} and {second}"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="sans-serif" font-size="10">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="8" y="16" font-size="12">{escape(title)}</text>',
        *_labels(grid),
        *cells,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _grid(targets: Sequence[Scope], first: str, second: str) -> Grid:
    groups: dict[tuple[Row, str], list[Scope]] = {}
    for scope in targets:
        if any({pair.first, pair.second} == {first, second} for pair in scope.pairs):
            place = place_of(scope.name)
            row = (place.stack, -1 if place.layer is None else place.layer)
            groups.setdefault((row, place.module), []).append(scope)
    if not groups:
        message = f"{first} and {second} change no target together"
        raise RefError(message, hint="name two adapters of the report that meet")
    cells = {place: _pair(gather("", same), first, second) for place, same in groups.items()}
    rows = tuple(sorted({row for row, _ in cells}))
    return Grid(rows, tuple(dict.fromkeys(column for _, column in sorted(cells))), cells)


def _pair(scope: Scope, first: str, second: str) -> Pair:
    return next(pair for pair in scope.pairs if {pair.first, pair.second} == {first, second})


def _labels(grid: Grid) -> list[str]:
    lines = []
    for i, (stack, layer) in enumerate(grid.rows):
        name = "other" if layer < 0 else f"{stack}.{layer}".lstrip(".")
        y = TOP + CELL * i + CELL * 0.7
        lines.append(f'<text x="{LEFT - 6}" y="{y:g}" text-anchor="end">{escape(name)}</text>')
    for i, module in enumerate(grid.columns):
        x = LEFT + CELL * i + CELL * 0.7
        turn = f'transform="rotate(-60 {x:g} {TOP - 6})"'
        lines.append(f'<text x="{x:g}" y="{TOP - 6}" {turn}>{escape(module)}</text>')
    return lines


def _cell(
    grid: Grid, row: Row, column: str, value: float | None, figure: Figure, largest: float
) -> str:
    x = LEFT + CELL * grid.columns.index(column)
    y = TOP + CELL * grid.rows.index(row)
    red, green, blue = _colour(value, figure, largest)
    name = ".".join(str(word) for word in (*row, column) if word not in {"", -1})
    text = escape(f"{name}: {'none' if value is None else f'{value:.3g}'}")
    return (
        f'<rect x="{x}" y="{y}" width="{CELL - 1}" height="{CELL - 1}" '
        f'fill="rgb({red},{green},{blue})"><title>{text}</title></rect>'
    )


def _colour(value: float | None, figure: Figure, largest: float) -> tuple[int, int, int]:
    if value is None:
        return GREY
    if figure == "cosine":
        return _blend(-value)
    if figure == "cancellation":
        return _blend(value)
    if figure == "dominance":  # 1 is equal
        return _blend((value - 1) / (largest - 1) if largest > 1 else 0.0)
    return _blend(value / largest if largest else 0.0)


def _blend(harm: float) -> tuple[int, int, int]:
    """Return a colour between blue (−1), white (0) and red (1)."""
    end = RED if harm > 0 else BLUE
    share = min(1.0, abs(harm))
    red, green, blue = (round(w + share * (e - w)) for w, e in zip(WHITE, end, strict=True))
    return red, green, blue
