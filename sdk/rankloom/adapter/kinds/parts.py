"""What readers of most kinds share: the tensors of each module, complete and of known dtypes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from rankloom.adapter.change import Target
from rankloom.adapter.kinds.reading import Reading
from rankloom.finding import Finding
from rankloom.tensorfile.header import TensorEntry

if TYPE_CHECKING:
    from collections.abc import Iterator

Parts = Mapping[str, TensorEntry]
"""Tensors of one module by the name of the part."""

Build = Callable[[str, Parts], Iterable[Target | Finding]]
"""From a module and its parts to targets and findings."""

DTYPES = frozenset(["F64", "F32", "F16", "BF16"])
_NAMED = {"TEN002": "save the adapter again, it lost a part", "TEN007": "save it in float32"}


def read_parts(
    tensors: Mapping[str, TensorEntry], endings: Mapping[str, str], build: Build
) -> Reading:
    """Read a kind that keeps the same tensors for each of its modules.

    Args:
        tensors: of the file, by key.
        endings: what stands behind the module's name in a key, by the name of the part.
        build: called with the parts of a module if none is missing or of a strange dtype.
    """
    keys = {
        (key.removesuffix(ending), name): key
        for key in tensors
        for name, ending in endings.items()
        if key.endswith(ending)
    }
    results: list[Target | Finding] = []
    for module in sorted({module for module, _ in keys}):
        parts = {name: tensors[keys[module, name]] for name in endings if (module, name) in keys}
        wrong = list(_check(module, parts, endings))
        results += wrong or build(module, parts)
    return Reading(
        targets=tuple(item for item in results if isinstance(item, Target)),
        taken=frozenset(keys.values()),
        findings=tuple(item for item in results if isinstance(item, Finding)),
    )


def _check(module: str, parts: Parts, endings: Mapping[str, str]) -> Iterator[Finding]:
    for name, ending in endings.items():
        if name not in parts:
            yield broken("TEN002", module, f"has no {ending.removeprefix('.')}")
        elif parts[name].dtype not in DTYPES:
            yield broken("TEN007", module, f"has {ending[1:]} in {parts[name].dtype}")


def broken(rule: str, module: str, what: str, fix: str = "save the adapter again") -> Finding:
    """Return a finding about a module's tensors."""
    return Finding(rule, f"{module} {what}", where=module, fix=_NAMED.get(rule, fix))


def misshapen(module: str, parts: Parts, wanted: str) -> Finding:
    """Return the finding that a module's tensors do not have the shapes of their kind."""
    shapes = ", ".join(f"{name} {list(entry.shape)}" for name, entry in parts.items())
    return broken("TEN003", module, f"has {shapes}; wanted {wanted}")
