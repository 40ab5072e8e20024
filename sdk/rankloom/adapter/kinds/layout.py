"""Tensors of a kind described by their axes, so that completeness, ranks and shapes check alike.

A layout names the tensors of one module and their axes: ``{"hada_w1_a": "out r", …}``. An axis has
one size in all tensors of a module; a number is that size; ``*`` at the end is any further axes.
A kind may store a module in one of several layouts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from rankloom.adapter.change import Target
from rankloom.adapter.kinds.parts import DTYPES, broken, misshapen
from rankloom.adapter.kinds.reading import Reading
from rankloom.finding import Finding

if TYPE_CHECKING:
    from rankloom.tensorfile.header import TensorEntry

Layout = Mapping[str, str]
INDICES = frozenset(["U8", "I16", "I32", "I64"])


class Parts(NamedTuple):
    """One module's tensors, which fit one layout.

    Attributes:
        module: the module's name.
        tensors: by their name in the layout.
        sizes: by axis.
    """

    module: str
    tensors: Mapping[str, TensorEntry]
    sizes: Mapping[str, int]


Build = Callable[[Parts], Iterable[Target | Finding]]
Known = Callable[[str], Mapping[str, int]]


def read_layouts(
    tensors: Mapping[str, TensorEntry],
    layouts: Sequence[Layout],
    build: Build,
    *,
    known: Known = lambda _: {},
    indices: frozenset[str] = frozenset(),
) -> Reading:
    """Read a kind from all its modules.

    Args:
        tensors: of the file, by key.
        layouts: how the kind stores a module; no two have the same names.
        build: from a module that fits to targets and findings.
        known: from a module to sizes of axes that the config tells.
        indices: names of tensors that may hold whole numbers.
    """
    found = by_module(tensors, frozenset(name for layout in layouts for name in layout))
    results: list[Target | Finding] = []
    for module, parts in sorted(found.items()):
        wrong = _dtypes(module, parts, indices)
        fitting = _fit(module, parts, layouts, dict(known(module))) if not wrong else None
        results += build(fitting) if isinstance(fitting, Parts) else [*wrong, *(fitting or ())]
    return Reading(
        targets=tuple(item for item in results if isinstance(item, Target)),
        taken=frozenset(f"{module}.{name}" for module, parts in found.items() for name in parts),
        findings=tuple(item for item in results if isinstance(item, Finding)),
    )


def by_module(
    tensors: Mapping[str, TensorEntry], names: Iterable[str]
) -> dict[str, dict[str, TensorEntry]]:
    """Group tensors by module; only those whose key ends in one of the names after a dot."""
    endings = {f".{name}": name for name in names}
    found: dict[str, dict[str, TensorEntry]] = {}
    for key, entry in tensors.items():
        for ending, name in endings.items():
            if key.endswith(ending):
                found.setdefault(key.removesuffix(ending), {})[name] = entry
    return found


def _dtypes(
    module: str, parts: Mapping[str, TensorEntry], indices: frozenset[str]
) -> list[Finding]:
    return [
        broken("TEN007", module, f"has {name} in {entry.dtype}")
        for name, entry in parts.items()
        if entry.dtype not in (DTYPES | INDICES if name in indices else DTYPES)
    ]


def _fit(
    module: str,
    parts: Mapping[str, TensorEntry],
    layouts: Sequence[Layout],
    sizes: dict[str, int],
) -> Parts | list[Finding]:
    layout = next((layout for layout in layouts if layout.keys() == parts.keys()), None)
    if layout is None:
        forms = " or ".join(sorted(" + ".join(layout) for layout in layouts))
        what = f"has {' + '.join(sorted(parts))}, but such a module has {forms}"
        return [broken("TEN002", module, what)]
    ranks = dict(sizes)
    for name, entry in parts.items():
        axes = _axes(layout[name], entry.shape)
        pairs = () if axes is None else zip(axes, entry.shape, strict=True)
        if axes is None or any(not _agrees(sizes, axis, size) for axis, size in pairs):
            return [_misfit(module, parts, layout, ranks)]
    return Parts(module, parts, sizes)


def _axes(text: str, shape: tuple[int, ...]) -> list[str] | None:
    axes = text.split()
    if axes[-1:] == ["*"]:
        axes = axes[:-1] + [f"*{place}" for place in range(len(shape) - len(axes) + 1)]
    return axes if len(axes) == len(shape) else None


def _agrees(sizes: dict[str, int], axis: str, size: int) -> bool:
    wanted = int(axis) if axis.isdigit() else sizes.setdefault(axis, size)
    return wanted == size


def _misfit(
    module: str, parts: Mapping[str, TensorEntry], layout: Layout, known: Mapping[str, int]
) -> Finding:
    wanted = ", ".join(f"{name} ({axes.replace(' ', ', ')})" for name, axes in layout.items())
    told = "".join(f" with {axis} = {size}" for axis, size in known.items())
    rank = known.get("r")
    finding = misshapen(module, parts, wanted + told)
    if rank is None or any(rank in entry.shape for entry in parts.values()):
        return finding
    return Finding("TEN004", finding.message, where=module, fix="correct the rank in the config")


def scales(rank: Callable[[str], int], alpha: Callable[[str], float]) -> Callable[[str], float]:
    """Return the lookup of alpha/r by module, as float64."""
    return lambda module: alpha(module) / rank(module)
